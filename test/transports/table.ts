/**
 * Requests and their expected results, on every transport: each kind of success, each kind of error, and the odd
 * inputs recorded from Go.
 */
import { Effect } from "effect"
import type { Driver } from "../../src/protocol/Driver.ts"
import { CurrentOwner } from "../../src/protocol/Driver.ts"
import type { Issue } from "../../src/protocol/RequestError.ts"
import { echo, grant } from "../support/drivers.ts"
import { listedMapping } from "../support/mappings.ts"
import odd from "../vectors/odd-input.json" with { type: "json" }

/**
 * `outcome` is the same word everywhere; `message` is the text of an error or the JSON of an answer; `issues` are
 * `undefined` where the transport doesn't carry them. `ownWords`: the text is the transport's and compares with no other.
 */
export interface Told {
  readonly outcome: "answer" | "request" | "notFound" | "driver" | "defect"
  readonly message: string
  readonly issues: ReadonlyArray<Issue> | undefined
  readonly ownWords?: boolean
}

export interface Row {
  readonly name: string
  readonly method: string
  /** Bytes, one for each character (latin1). */
  readonly body: string
  readonly owner?: string
  /** Default: the built-in mapper on the in-memory services. */
  readonly driver?: Driver["Service"]
  /** Earlier requests; each must succeed. */
  readonly before?: ReadonlyArray<readonly [method: string, body: string]>
  /** A field left out may have any value, but the same on all transports. */
  readonly expected: {
    readonly outcome: Told["outcome"]
    readonly message?: string
    readonly issues?: ReadonlyArray<Issue>
  }
}

const map = "PortMapper.MapPorts"
const mapGroups = "PortMapper.MapGroups"
const unmap = "PortMapper.UnmapPorts"
const list = "PortMapper.ListPorts"

const entry = (fields: object = {}) => ({
  Proto: 6,
  BackendIP: "172.17.0.2",
  BackendPort: 80,
  FrontendIP: "0.0.0.0",
  FrontendPort: 8080,
  FrontendPortEnd: 8080,
  ...fields
})

/** UTF-8, one character for each byte; without `Buffer`, since the table also runs on other runtimes. */
const latin1 = (text: string): string =>
  Array.from(new TextEncoder().encode(text), (byte) => String.fromCharCode(byte)).join("")
const json = (value: unknown): string => latin1(JSON.stringify(value))
const group = (...entries: ReadonlyArray<object>): string => json({ Reqs: entries, Labels: null })

const granted =
  '{"PortBindings":[{"Proto":6,"BackendIP":"172.17.0.2","BackendPort":80,"FrontendIP":"0.0.0.0","FrontendPort":8080,"DiscardReq":false,"AllowForwarding":true,"NAT":null,"Error":null}],"Err":""}'

const successes: ReadonlyArray<Row> = [
  {
    name: "activates",
    method: "Plugin.Activate",
    body: "",
    expected: { outcome: "answer", message: '{"Implements":["PortMapper"]}' }
  },
  {
    name: "activates whatever the body",
    method: "Plugin.Activate",
    body: '{"x":[1]}',
    expected: { outcome: "answer", message: '{"Implements":["PortMapper"]}' }
  },
  {
    name: "maps a group",
    method: map,
    body: group(entry()),
    expected: { outcome: "answer", message: granted }
  },
  {
    name: "maps what is mapped as before",
    method: map,
    body: group(entry()),
    before: [[map, group(entry())]],
    expected: { outcome: "answer", message: granted }
  },
  {
    name: "maps an ephemeral port, the same for the group",
    method: map,
    body: group(
      entry({ FrontendPort: 0, FrontendPortEnd: 0 }),
      entry({ FrontendIP: "::", FrontendPort: 0, FrontendPortEnd: 0 })
    ),
    expected: { outcome: "answer" }
  },
  {
    name: "maps nothing",
    method: map,
    body: "{}",
    expected: { outcome: "answer", message: '{"PortBindings":[],"Err":""}' }
  },
  {
    name: "maps several groups",
    method: mapGroups,
    body: json({ Groups: [{ Reqs: [entry()], Labels: null }, { Reqs: [] }] }),
    expected: {
      outcome: "answer",
      message: `{"Groups":[${granted},{"PortBindings":[],"Err":""}],"Err":""}`
    }
  },
  {
    name: "maps no groups",
    method: mapGroups,
    body: "{}",
    expected: { outcome: "answer", message: '{"Groups":[],"Err":""}' }
  },
  {
    name: "unmaps what is mapped",
    method: unmap,
    body: json({ PortBindings: [entry()] }),
    before: [[map, group(entry())]],
    expected: { outcome: "answer", message: "{}" }
  },
  {
    name: "unmaps what is not mapped",
    method: unmap,
    body: json({ PortBindings: [entry()] }),
    expected: { outcome: "answer", message: "{}" }
  },
  {
    name: "lists nothing",
    method: list,
    body: "{}",
    expected: { outcome: "answer", message: '{"Mappings":[]}' }
  },
  {
    name: "lists the owner named",
    method: list,
    body: "{}",
    driver: {
      ...echo,
      listPorts: Effect.map(CurrentOwner, (owner) => [
        listedMapping({
          frontendPort: 80,
          backendIp: "10.0.0.2",
          owner,
          labels: new Map([["é", "\u{1f600}"]]),
          connections: 1
        })
      ])
    },
    owner: "cni:1/eth0",
    expected: {
      outcome: "answer",
      message:
        '{"Mappings":[{"Proto":6,"FrontendIP":"0.0.0.0","FrontendPort":80,"BackendIP":"10.0.0.2","BackendPort":80,"Mode":"nat","Owner":"cni:1/eth0","State":"live","Since":"1970-01-01T00:00:00.000Z","Labels":{"é":"\u{1f600}"},"Connections":1,"BytesIn":null,"BytesOut":null,"Service":"","Refused":null,"Slots":null,"Open":null,"Container":"","Reason":"","Host":"","HostAddress":""}]}'
    }
  }
]

const refusing = (error: { readonly _tag: string; readonly message: string }): Driver["Service"] => ({
  ...echo,
  mapPorts: () => Effect.fail(error),
  unmapPorts: () => Effect.fail(error),
  listPorts: Effect.fail(error)
})

const labelled: Driver["Service"] = {
  ...echo,
  mapPorts: ({ labels }) => Effect.fail({ _tag: "Labels", message: JSON.stringify([...labels]) })
}

/** Grants every request but those for backend port 81. */
const taken: Driver["Service"] = {
  ...echo,
  mapPorts: (group) =>
    group.entries[0]?.backend.port === 81
      ? Effect.fail({ _tag: "PortAllocated", message: "port is already allocated" })
      : Effect.succeed(grant(group))
}

const errors: ReadonlyArray<Row> = [
  {
    name: "a port that is taken",
    method: map,
    body: group(entry({ BackendPort: 81 })),
    before: [[map, group(entry())]],
    driver: taken,
    expected: { outcome: "driver", message: "port is already allocated" }
  },
  {
    name: "one of several groups whose port is taken",
    method: mapGroups,
    body: json({ Groups: [{ Reqs: [entry()] }, { Reqs: [entry({ BackendPort: 81 })] }] }),
    driver: taken,
    expected: { outcome: "driver", message: "Groups[1]: port is already allocated" }
  },
  {
    name: "several groups that are wrong",
    method: mapGroups,
    body: json({
      Groups: [{ Reqs: [entry({ Proto: 1 })] }, { Reqs: [entry()] }, { Reqs: [entry({ BackendIP: "" })] }]
    }),
    expected: {
      outcome: "request",
      issues: [
        { path: "Groups[0].Reqs[0].Proto", value: "1", rule: "6 (tcp), 17 (udp) or 132 (sctp)" },
        {
          path: "Groups[2].Reqs[0].BackendIP",
          value: '""',
          rule: "the address of the container, a unicast one"
        }
      ]
    }
  },
  {
    name: "a group of several with a label of ours that is unknown",
    method: mapGroups,
    body: json({ Groups: [{ Reqs: [entry()], Labels: { "portmapper.nope": "x" } }] }),
    expected: { outcome: "request" }
  },
  ...([map, unmap, list] as const).map(
    (method): Row => ({
      name: `the driver's error of ${method}`,
      method,
      body: "{}",
      driver: refusing({ _tag: "Busy", message: 'busy: \u00e9\u2028 "quoted"\n' }),
      expected: { outcome: "driver", message: 'busy: \u00e9\u2028 "quoted"\n' }
    })
  ),
  {
    name: "a defect of the driver",
    method: map,
    body: "{}",
    driver: { ...echo, mapPorts: () => Effect.die(new TypeError("x is not a function")) },
    expected: { outcome: "defect", message: "internal error: TypeError: x is not a function" }
  },
  {
    name: "too few bindings from the driver",
    method: map,
    body: group(entry()),
    driver: { ...echo, mapPorts: () => Effect.succeed([]) },
    expected: {
      outcome: "defect",
      message: "internal error: Error: the driver returned 0 bindings for a group of 1 entries"
    }
  },
  {
    name: "a method that the driver does not have",
    method: list,
    body: "{}",
    driver: echo,
    expected: {
      outcome: "notFound",
      message: "PortMapper.ListPorts: this port mapper does not know the method"
    }
  },
  {
    name: "an unknown method",
    method: "PortMapper.Nope",
    body: "{}",
    expected: { outcome: "notFound" }
  },
  {
    name: "a message over the limit",
    method: map,
    body: `{"Labels":{"a":"${"x".repeat(1024 * 1024)}"}}`,
    expected: { outcome: "request" }
  },
  { name: "an empty body", method: map, body: "", expected: { outcome: "request" } },
  {
    name: "several things wrong at once",
    method: map,
    body: group(entry({ Proto: 1 }), entry({ FrontendPort: 9, BackendIP: "224.0.0.1" })),
    expected: {
      outcome: "request",
      issues: [
        { path: "Reqs[0].Proto", value: "1", rule: "6 (tcp), 17 (udp) or 132 (sctp)" },
        {
          path: "Reqs[1].BackendIP",
          value: '"224.0.0.1"',
          rule: "the address of the container, a unicast one"
        }
      ]
    }
  },
  {
    name: "a label of ours that is unknown",
    method: map,
    body: json({ Reqs: [entry()], Labels: { "portmapper.nope": "x" } }),
    expected: { outcome: "request" }
  },
  {
    name: "an unknown protocol to unmap",
    method: unmap,
    body: json({ PortBindings: [entry({ Proto: 3 })] }),
    expected: { outcome: "request" }
  },
  {
    name: "a list requested with an array",
    method: list,
    body: "[]",
    expected: {
      outcome: "request",
      message: "bad request: []: must be an object",
      issues: [{ path: "", value: "[]", rule: "an object" }]
    }
  }
]

/** The content of a string arrives unchanged, or as U+FFFD, on every transport alike. */
const strings: ReadonlyArray<Row> = (
  [
    ["UTF-8", json({ Labels: { a: "\u00e9\u{1f600}\u0000" } }), "\u00e9\u{1f600}\u0000"],
    ["a byte that is no UTF-8", '{"Labels":{"a":"\xff"}}', "\ufffd"],
    ["half a character", '{"Labels":{"a":"\xe2\x82"}}', "\ufffd"],
    ["an overlong form", '{"Labels":{"a":"\xc0\x80"}}', "\ufffd\ufffd"],
    ["a surrogate as UTF-8", '{"Labels":{"a":"\xed\xa0\x80"}}', "\ufffd\ufffd\ufffd"],
    ["half an escaped pair", '{"Labels":{"a":"\\ud800x"}}', "\ufffdx"],
    ["an escaped pair", '{"Labels":{"a":"\\ud83d\\ude00"}}', "\u{1f600}"]
  ] as const
).map(([name, body, value]) => ({
  name: `a label with ${name}`,
  method: map,
  body,
  driver: labelled,
  expected: { outcome: "driver", message: JSON.stringify([["a", value]]) }
}))

const keys: ReadonlyArray<Row> = [
  {
    name: "a label given twice",
    method: map,
    body: '{"Labels":{"a":"b","a":"c"}}',
    driver: labelled,
    expected: { outcome: "driver", message: '[["a","c"]]' }
  },
  {
    name: "labels given twice",
    method: map,
    body: '{"Labels":{"a":"b"},"labels":{"c":"d"}}',
    driver: labelled,
    expected: { outcome: "driver", message: '[["a","b"],["c","d"]]' }
  },
  {
    name: "a group given twice",
    method: map,
    body: '{"Reqs":[],"Reqs":[]}',
    expected: {
      outcome: "request",
      message: "bad request: Reqs = []: must be given once",
      issues: [{ path: "Reqs", value: "[]", rule: "given once" }]
    }
  },
  {
    name: "__proto__ as a label",
    method: map,
    body: '{"Labels":{"__proto__":"x"}}',
    driver: labelled,
    expected: { outcome: "driver", message: '[["__proto__","x"]]' }
  }
]

const oddInput: ReadonlyArray<Row> = odd.map(({ type, json: text, accepted }, index): Row => {
  const body = latin1(text)
  return {
    name: `odd input ${index}: ${text.slice(0, 60)}`,
    method: type === "MapPortsRequest" ? map : unmap,
    body,
    expected: { outcome: accepted && meaningful(text) ? "answer" : "request" }
  }
})

/** Of the inputs that Go's JSON accepts, those that name a binding: the rules for requests refuse the others. */
function meaningful(text: string): boolean {
  return !/"(Reqs|reqs|PortBindings)":\[[^\]]/.test(text)
}

export const table: ReadonlyArray<Row> = [...successes, ...errors, ...strings, ...keys, ...oddInput]
