/**
 * What a plugin must do, check by check, after PROTOCOL. Each check examines one thing and skips what another check
 * already reports, so that one fault is reported once.
 */
import { Effect } from "effect"
import type { WireBinding, WireReq } from "../Target.ts"
import {
  backend,
  backend6,
  broken,
  entry,
  field,
  json,
  type Mapped,
  mustBe,
  type Probe,
  type Stop,
  skip
} from "./Probe.ts"

export interface Check {
  readonly id: string
  /** What a passing check proves, as one sentence. */
  readonly holds: string
  /** Whether a failure affects an Engine's users; otherwise the check is a recommendation. */
  readonly required: boolean
  /** Whether the check needs a plugin that assigns host ports. */
  readonly needsPorts: boolean
  readonly run: (probe: Probe) => Effect.Effect<void, Stop>
}

const check = (
  id: string,
  holds: string,
  run: (probe: Probe) => Effect.Effect<void, Stop>,
  kind: "required" | "optional" = "required",
  needsPorts = true
): Check => ({ id, holds, required: kind === "required", needsPorts, run })

/** Sent only where the plugin may be activated: a live plugin may take it for the start of its Engine. */
export const handshake: Check = check(
  "handshake",
  "Plugin.Activate with an empty body is answered 200, and Implements names PortMapper",
  (probe) =>
    Effect.gen(function* () {
      const answer = yield* probe.send("/Plugin.Activate", "")
      yield* mustBe(answer.status === 200, `status ${answer.status}`)
      const named = field(json(answer.body), "Implements")
      yield* mustBe(
        Array.isArray(named) && named.includes("PortMapper"),
        "Implements does not name PortMapper"
      )
    }),
  "required",
  false
)

const sameTexts = (asked: WireReq, bound: WireBinding | undefined): string | undefined =>
  (["Proto", "BackendIP", "BackendPort"] as const).find((name) => bound?.[name] !== asked[name])

const freed = (probe: Probe, reqs: ReadonlyArray<WireReq>, why: string): Effect.Effect<void, Stop> =>
  Effect.flatMap(probe.mapGroup(reqs), (mapped) =>
    mapped._tag === "Granted" ? Effect.void : broken(`${why}: ${mapped.text}`)
  )

const refusedBody = (id: string, holds: string, body: (port: number) => string): Check =>
  check(
    id,
    holds,
    (probe) =>
      Effect.flatMap(probe.map(body(probe.port())), (mapped) =>
        mustBe(mapped._tag === "Refused", "it was granted")
      ),
    "required",
    false
  )

const wrongEntry = (id: string, holds: string, fields: (port: number) => object): Check =>
  refusedBody(id, holds, (port) =>
    JSON.stringify({ Reqs: [{ ...entry("0.0.0.0", backend(0), port), ...fields(port) }], Labels: {} })
  )

/** A conflict on a fresh port: the second claim, after the first one was granted. */
const conflict = (probe: Probe): Effect.Effect<{ readonly port: number; readonly second: Mapped }, Stop> =>
  Effect.gen(function* () {
    const port = probe.port()
    yield* probe.grant([entry("0.0.0.0", backend(1), port)])
    return { port, second: yield* probe.mapGroup([entry("0.0.0.0", backend(2), port)]) }
  })

/** A third claim on a range of two. */
const exhausted = (probe: Probe): Effect.Effect<Mapped, Stop> =>
  Effect.gen(function* () {
    const [first, last] = [probe.port(), probe.port()]
    for (const index of [1, 2]) {
      const [bound] = yield* probe.grant([entry("0.0.0.0", backend(index), first, last)])
      const port = bound?.FrontendPort ?? 0
      if (port < first || port > last) return yield* skip("the range is not kept to")
    }
    return yield* probe.mapGroup([entry("0.0.0.0", backend(3), first, last)])
  })

export const checks: ReadonlyArray<Check> = [
  check(
    "map-answer",
    "a granted entry is answered with its protocol, its backend and an empty Err",
    (probe) =>
      Effect.gen(function* () {
        const asked = entry("0.0.0.0", backend(0), probe.port())
        const mapped = yield* probe.mapGroup([asked])
        if (mapped._tag === "Refused") return yield* broken(`refused: ${mapped.text}`)
        yield* mustBe(mapped.bindings.length === 1, `${mapped.bindings.length} bindings for one entry`)
        const differing = sameTexts(asked, mapped.bindings[0])
        yield* mustBe(differing === undefined, `${differing} is not the one requested`)
      }),
    "required",
    false
  ),
  check(
    "order",
    "bindings are answered one for each entry, in their order",
    (probe) =>
      Effect.gen(function* () {
        const port = probe.port()
        const asked = [entry("0.0.0.0", backend(3), port), entry("::", backend6(4), port)]
        const mapped = yield* probe.mapGroup(asked)
        if (mapped._tag === "Refused") return yield* skip(`refused: ${mapped.text}`)
        if (mapped.bindings.length === 0) return yield* skip("it answers no bindings at all")
        yield* mustBe(
          mapped.bindings.length === 2 &&
            mapped.bindings.every((bound, index) => bound.FrontendIP === asked[index]?.FrontendIP),
          "they are not in the order of the entries"
        )
      }),
    "required",
    false
  ),
  check(
    "exact-port",
    "an exact port is the user's word: it is granted or refused, never substituted",
    (probe) =>
      Effect.gen(function* () {
        const { port, second } = yield* conflict(probe)
        if (second._tag === "Refused") return
        const [bound] = second.bindings
        yield* mustBe(bound?.FrontendPort === port, `port ${bound?.FrontendPort} was given for ${port}`)
      })
  ),
  check("conflict", "a port that is published already is refused to another backend", (probe) =>
    Effect.gen(function* () {
      const { port, second } = yield* conflict(probe)
      if (second._tag === "Refused") return
      yield* mustBe(second.bindings[0]?.FrontendPort !== port, `port ${port} was granted twice`)
    })
  ),
  check("conflict-text", "the refusal of a published port says `port is already allocated`", (probe) =>
    Effect.gen(function* () {
      const { second } = yield* conflict(probe)
      if (second._tag === "Granted") return yield* skip("it was granted")
      yield* mustBe(second.text.includes("port is already allocated"), `it says: ${second.text}`)
    })
  ),
  check("failure-status", "a refused MapPorts is not answered 200", (probe) =>
    Effect.gen(function* () {
      const { second } = yield* conflict(probe)
      if (second._tag === "Granted") return yield* skip("it was granted")
      yield* mustBe(second.answer.status !== 200, "status 200 with Err")
    })
  ),
  check(
    "failure-body",
    'a failure is answered as {"Err": "…"}',
    (probe) =>
      Effect.gen(function* () {
        const { second } = yield* conflict(probe)
        if (second._tag === "Granted") return yield* skip("it was granted")
        const error = field(json(second.answer.body), "Err")
        yield* mustBe(typeof error === "string" && error !== "", `the body is: ${second.answer.body}`)
      }),
    "optional"
  ),
  check("group-port", "all addresses of one group get the same port, ephemeral or of a range", (probe) =>
    Effect.gen(function* () {
      const [first, last] = [probe.port(), probe.port()]
      for (const [from, to] of [
        [0, 0],
        [first, last]
      ] as const) {
        const mapped = yield* probe.mapGroup([
          entry("0.0.0.0", backend(5), from, to),
          entry("::", backend6(5), from, to)
        ])
        if (mapped._tag === "Refused") return yield* skip(`refused: ${mapped.text}`)
        const ports = mapped.bindings
          .filter(({ DiscardReq }) => !DiscardReq)
          .map((bound) => bound.FrontendPort)
        if (ports.length < 2) return yield* skip("MapPorts did not grant every entry")
        yield* mustBe(new Set(ports).size === 1, `ports ${ports.join(" and ")}`)
      }
    })
  ),
  check("ephemeral", "port 0 gets a port above 1023, and two groups get two", (probe) =>
    Effect.gen(function* () {
      const [one] = yield* probe.grant([entry("0.0.0.0", backend(6), 0)])
      const [other] = yield* probe.grant([entry("0.0.0.0", backend(7), 0)])
      const ports = [one?.FrontendPort ?? 0, other?.FrontendPort ?? 0]
      yield* mustBe(
        ports.every((port) => port > 1023 && port < 65536),
        `ports ${ports.join(" and ")}`
      )
      yield* mustBe(ports[0] !== ports[1], `port ${ports[0]} was given twice`)
    })
  ),
  check(
    "ephemeral-rising",
    "an ephemeral port just freed is not given again at once",
    (probe) =>
      Effect.gen(function* () {
        const bindings = yield* probe.grant([entry("0.0.0.0", backend(6), 0)])
        yield* probe.unmap(bindings)
        const [next] = yield* probe.grant([entry("0.0.0.0", backend(7), 0)])
        yield* mustBe(
          next?.FrontendPort !== bindings[0]?.FrontendPort,
          `port ${next?.FrontendPort} was given again`
        )
      }),
    "optional"
  ),
  check("range", "a range gets a port of the range", (probe) =>
    Effect.gen(function* () {
      const [first, last] = [probe.port(), probe.port()]
      const [bound] = yield* probe.grant([entry("0.0.0.0", backend(8), first, last)])
      const port = bound?.FrontendPort ?? 0
      yield* mustBe(first <= port && port <= last, `port ${port} was given for ${first}-${last}`)
    })
  ),
  check("range-exhausted", "a range without a free port is refused", (probe) =>
    Effect.gen(function* () {
      yield* mustBe((yield* exhausted(probe))._tag === "Refused", "it was granted")
    })
  ),
  check(
    "range-exhausted-text",
    "the refusal of a range without a free port says `all ports are allocated`",
    (probe) =>
      Effect.gen(function* () {
        const third = yield* exhausted(probe)
        if (third._tag === "Granted") return yield* skip("it was granted")
        yield* mustBe(third.text.includes("all ports are allocated"), `it says: ${third.text}`)
      })
  ),
  check(
    "remap",
    "mapping a group again with the port it got succeeds with the same answer",
    (probe) =>
      Effect.gen(function* () {
        const port = probe.port()
        const asked = [entry("0.0.0.0", backend(9), port)]
        yield* probe.grant(asked)
        const again = yield* probe.mapGroup(asked)
        if (again._tag === "Refused") return yield* broken(`refused: ${again.text}`)
        yield* mustBe(
          again.bindings[0]?.FrontendPort === port,
          `port ${again.bindings[0]?.FrontendPort} the second time`
        )
      }),
    "required",
    false
  ),
  check("remap-once", "what was mapped twice is unmapped once", (probe) =>
    Effect.gen(function* () {
      const port = probe.port()
      const bindings = yield* probe.grant([entry("0.0.0.0", backend(9), port)])
      yield* probe.grant([entry("0.0.0.0", backend(9), port)])
      yield* probe.unmap(bindings)
      const other = yield* probe.mapGroup([entry("0.0.0.0", backend(10), port)])
      if (other._tag === "Granted") return
      // If a mapping that was made once can't be freed either, the second call is not the cause.
      const once = probe.port()
      yield* probe.unmap(yield* probe.grant([entry("0.0.0.0", backend(9), once)]))
      const freely = yield* probe.mapGroup([entry("0.0.0.0", backend(10), once)])
      if (freely._tag === "Refused") return yield* skip("unmapping does not free a port")
      yield* broken(`the port is still taken: ${other.text}`)
    })
  ),
  check("unmap", "an unmapped port can be mapped for another backend", (probe) =>
    Effect.gen(function* () {
      const port = probe.port()
      const bindings = yield* probe.grant([entry("0.0.0.0", backend(11), port)])
      yield* probe.unmap(bindings)
      yield* freed(probe, [entry("0.0.0.0", backend(12), port)], "the port is still taken")
    })
  ),
  check(
    "unmap-status",
    "UnmapPorts of what is mapped is answered 200",
    (probe) =>
      Effect.gen(function* () {
        const bindings = yield* probe.grant([entry("0.0.0.0", backend(11), probe.port())])
        const answer = yield* probe.unmap(bindings)
        yield* mustBe(answer.status === 200, `status ${answer.status}`)
      }),
    "required",
    false
  ),
  check(
    "unmap-unmapped",
    "UnmapPorts of what is not mapped succeeds",
    (probe) =>
      Effect.gen(function* () {
        const { FrontendPort, FrontendPortEnd: _, ...rest } = entry("0.0.0.0", backend(13), probe.port())
        const never = {
          ...rest,
          FrontendPort,
          DiscardReq: false,
          AllowForwarding: false,
          NAT: null,
          Error: null
        }
        const answer = yield* probe.unmap([never])
        yield* mustBe(answer.status === 200, `status ${answer.status}: ${answer.body}`)
      }),
    "required",
    false
  ),
  check("unmap-one", "unmapping one binding of a group leaves the others", (probe) =>
    Effect.gen(function* () {
      const port = probe.port()
      const bindings = yield* probe.grant([
        entry("0.0.0.0", backend(14), port),
        entry("::", backend6(14), port)
      ])
      yield* probe.unmap(bindings.slice(0, 1))
      const other = yield* probe.mapGroup([entry("::", backend6(15), port)])
      if (other._tag === "Refused") return
      // If a conflict is never refused, the unmapping is not the cause.
      const { second } = yield* conflict(probe)
      if (second._tag === "Granted") return yield* skip("conflicts are granted")
      yield* broken("the other binding is gone")
    })
  ),
  check(
    "unmap-failure-status",
    "an UnmapPorts that failed is not answered 200: the Engine reads no more than the status",
    (probe) =>
      Effect.gen(function* () {
        const answer = yield* probe.send("/PortMapper.UnmapPorts", '{"PortBindings":[')
        yield* mustBe(answer.status !== 200, `half a request was answered 200: ${answer.body}`)
      }),
    "required",
    false
  ),
  check("failed-group", "a group that fails leaves nothing behind", (probe) =>
    Effect.gen(function* () {
      const port = probe.port()
      yield* probe.grant([entry("::", backend6(16), port)])
      const group = yield* probe.mapGroup([
        entry("0.0.0.0", backend(17), port),
        entry("::", backend6(17), port)
      ])
      if (group._tag === "Granted") return yield* skip("it was granted")
      yield* freed(probe, [entry("0.0.0.0", backend(18), port)], "its first entry is still mapped")
    })
  ),
  check("failed-group-others", "a group that fails leaves what was mapped before as it was", (probe) =>
    Effect.gen(function* () {
      const port = probe.port()
      const held = [entry("::", backend6(16), port)]
      yield* probe.grant(held)
      const group = yield* probe.mapGroup([
        entry("0.0.0.0", backend(17), port),
        entry("::", backend6(17), port)
      ])
      if (group._tag === "Granted") return yield* skip("it was granted")
      const third = yield* probe.mapGroup([entry("::", backend6(18), port)])
      yield* mustBe(
        third._tag === "Refused" || third.bindings[0]?.FrontendPort !== port,
        "the port was free afterwards"
      )
    })
  ),
  check("same-backend", "addresses of one group with the same backend never conflict", (probe) =>
    Effect.gen(function* () {
      const port = probe.port()
      const group = [
        entry("0.0.0.0", backend(19), port),
        entry("127.0.0.1", backend(19), port),
        entry("::", backend(19), port)
      ]
      const mapped = yield* probe.mapGroup(group)
      if (mapped._tag === "Refused") return yield* broken(mapped.text)
      if (mapped.bindings.length === 0) yield* skip("it answers no bindings at all")
    })
  ),
  check("families", "0.0.0.0 and :: do not conflict", (probe) =>
    Effect.gen(function* () {
      const port = probe.port()
      yield* probe.grant([entry("0.0.0.0", backend(20), port)])
      yield* freed(probe, [entry("::", backend6(21), port)], "refused")
    })
  ),
  check("any-address", "a port of 0.0.0.0 is refused on one address to another backend", (probe) =>
    Effect.gen(function* () {
      const port = probe.port()
      yield* probe.grant([entry("0.0.0.0", backend(22), port)])
      const one = yield* probe.mapGroup([entry("127.0.0.1", backend(23), port)])
      if (one._tag === "Refused" || one.bindings[0]?.DiscardReq) return
      if (one.bindings[0]?.FrontendPort !== port) return yield* skip("another port was given")
      const { second } = yield* conflict(probe)
      if (second._tag === "Granted") return yield* skip("conflicts are granted")
      yield* broken("it was granted")
    })
  ),
  check("protocols", "the same port of TCP and of UDP do not conflict", (probe) =>
    Effect.gen(function* () {
      const port = probe.port()
      yield* probe.grant([entry("0.0.0.0", backend(24), port)])
      yield* freed(probe, [entry("0.0.0.0", backend(25), port, port, 17)], "refused")
    })
  ),
  check(
    "no-entries",
    "no entries, or none at all, are answered 200 with no bindings",
    (probe) =>
      Effect.gen(function* () {
        for (const Reqs of [[], null]) {
          const mapped = yield* probe.map({ Reqs, Labels: null })
          if (mapped._tag === "Refused") return yield* broken(`refused: ${mapped.text}`)
          yield* mustBe(mapped.bindings.length === 0, "there are bindings")
        }
      }),
    "required",
    false
  ),
  check(
    "differing-ports",
    "entries of one group that differ in port are refused",
    (probe) =>
      Effect.gen(function* () {
        const [one, other] = [probe.port(), probe.port()]
        const mapped = yield* probe.mapGroup([
          entry("0.0.0.0", backend(26), one),
          entry("::", backend6(26), other)
        ])
        yield* mustBe(mapped._tag === "Refused", "they were granted")
      }),
    "optional",
    false
  ),
  refusedBody("bad-json", "half a JSON text is refused", () => '{"Reqs":['),
  refusedBody("empty-body", "an empty body, as the Engine's second attempt has it, is refused", () => ""),
  refusedBody("bad-shape", "JSON of another shape is refused", () => '{"Reqs":{"Proto":6}}'),
  wrongEntry("bad-port", "a port past 65535 is refused", () => ({
    FrontendPort: 65536,
    FrontendPortEnd: 65536
  })),
  wrongEntry("bad-address", "a backend that is no address is refused", () => ({ BackendIP: "backend" })),
  wrongEntry("bad-protocol", "a protocol without ports is refused", () => ({ Proto: 1 })),
  wrongEntry("bad-range", "a range that ends before it starts is refused", (port) => ({
    FrontendPort: port,
    FrontendPortEnd: port - 1
  })),
  check(
    "empty-frontend",
    "an empty frontend address is answered as empty",
    (probe) =>
      Effect.gen(function* () {
        const mapped = yield* probe.mapGroup([entry("", backend(27), probe.port())])
        if (mapped._tag === "Refused") return yield* broken(`refused: ${mapped.text}`)
        if (mapped.bindings.length === 0) return yield* skip("it answers no bindings at all")
        const answered = mapped.bindings[0]?.FrontendIP
        yield* mustBe(answered === "", `FrontendIP is answered as ${JSON.stringify(answered)}`)
      }),
    "required",
    false
  ),
  check(
    "unknown-fields",
    "fields that it does not know are ignored, and a missing one is zero",
    (probe) =>
      Effect.gen(function* () {
        const { FrontendIP: _, ...asked } = entry("", backend(28), probe.port())
        const mapped = yield* probe.map({ Reqs: [{ ...asked, Weight: 1 }], Comment: "x" })
        if (mapped._tag === "Refused") yield* broken(`refused: ${mapped.text}`)
      }),
    "required",
    false
  ),
  check(
    "labels",
    "labels of others' are let through: none, many, long ones, and ones that Go escapes",
    (probe) =>
      Effect.gen(function* () {
        const many = Object.fromEntries(
          Array.from({ length: 200 }, (_, index) => [`com.example.${index}`, "x".repeat(200)])
        )
        for (const labels of [null, { "com.example": '<a href="b">&é\u2028' }, many]) {
          const asked = { Reqs: [entry("0.0.0.0", backend(29), probe.port())], Labels: labels }
          const text = JSON.stringify(asked).replace(
            /[<>&\u2028]/g,
            (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`
          )
          const mapped = yield* probe.map(text)
          if (mapped._tag === "Refused") return yield* broken(`refused: ${mapped.text}`)
        }
      }),
    "required",
    false
  ),
  check(
    "empty-host",
    "a request with an empty Host: is answered, as Debian's Engine sends it",
    (probe) =>
      Effect.gen(function* () {
        const mapped = yield* probe.map({ Reqs: [], Labels: {} }, { host: "" })
        if (mapped._tag === "Refused") yield* broken(`status ${mapped.answer.status}: ${mapped.text}`)
      }),
    "required",
    false
  ),
  check(
    "unknown-path",
    "an unknown path is answered 404",
    (probe) =>
      Effect.gen(function* () {
        const answer = yield* probe.send("/PortMapper.Nothing", "{}\n")
        yield* mustBe(answer.status === 404, `status ${answer.status}`)
      }),
    "optional",
    false
  ),
  check(
    "content-type",
    "answers carry application/vnd.docker.plugins.v1.…+json",
    (probe) =>
      Effect.gen(function* () {
        const answer = yield* probe.send("/PortMapper.MapPorts", '{"Reqs":null,"Labels":null}\n')
        const type = answer.headers["content-type"] ?? ""
        yield* mustBe(
          /^application\/vnd\.docker\.plugins\.v1(\.\d)?\+json/.test(type),
          `Content-Type is ${JSON.stringify(type)}`
        )
      }),
    "optional",
    false
  ),
  check("at-once-ephemeral", "ephemeral ports requested concurrently are different", (probe) =>
    Effect.gen(function* () {
      const all = yield* Effect.forEach(
        Array.from({ length: 12 }, (_, index) => index),
        (index) => probe.mapGroup([entry("0.0.0.0", backend(30 + index), 0)]),
        { concurrency: "unbounded" }
      )
      const ports = all.flatMap((each) =>
        each._tag === "Granted" ? each.bindings.map((bound) => bound.FrontendPort) : []
      )
      if (ports.length < all.length) return yield* skip("some were refused")
      if (new Set(ports).size < ports.length) yield* broken(`ports ${ports.join(", ")}`)
    })
  ),
  check("at-once-exact", "of several that claim one port at once, one gets it", (probe) =>
    Effect.gen(function* () {
      const port = probe.port()
      const all = yield* Effect.forEach(
        Array.from({ length: 8 }, (_, index) => index),
        (index) => probe.mapGroup([entry("0.0.0.0", backend(50 + index), port)]),
        { concurrency: "unbounded" }
      )
      const granted = all.filter((each) => each._tag === "Granted" && each.bindings[0]?.FrontendPort === port)
      if (granted.length === 1) return
      const { second } = yield* conflict(probe)
      if (second._tag === "Granted") return yield* skip("conflicts are granted")
      yield* broken(`${granted.length} got it`)
    })
  )
]
