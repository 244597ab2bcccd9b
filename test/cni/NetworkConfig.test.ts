import { assert, describe, it } from "@effect/vitest"
import { CniError } from "../../adapters/cni/CniError.ts"
import { type Invocation, invocationOf, ownerOf } from "../../adapters/cni/Environment.ts"
import {
  configOf,
  publicationOf,
  supportedVersions,
  validAttachments
} from "../../adapters/cni/NetworkConfig.ts"

const outcome = (run: () => unknown): unknown => {
  try {
    return run()
  } catch (error) {
    if (!(error instanceof CniError)) throw error
    return `${error.code} ${error.message}${error.details === "" ? "" : `: ${error.details}`}`
  }
}

const config = (fields: object, command: Invocation["command"] = "ADD") =>
  configOf(JSON.stringify({ cniVersion: "1.1.0", name: "net", ...fields }), command)

describe("the parameters of an execution", () => {
  const all = { CNI_CONTAINERID: "c1", CNI_NETNS: "/run/netns/c1", CNI_IFNAME: "eth0" }
  const rows: ReadonlyArray<readonly [title: string, variables: Record<string, string>, expected: unknown]> =
    [
      [
        "of ADD",
        { CNI_COMMAND: "ADD", ...all },
        { command: "ADD", attachment: { containerId: "c1", ifName: "eth0" }, netns: all.CNI_NETNS }
      ],
      [
        "of DEL, without a namespace",
        { CNI_COMMAND: "DEL", CNI_CONTAINERID: "a.b_c-d", CNI_IFNAME: "net1" },
        { command: "DEL", attachment: { containerId: "a.b_c-d", ifName: "net1" } }
      ],
      ["of GC, which names no attachment", { CNI_COMMAND: "GC" }, { command: "GC" }],
      ["of STATUS", { CNI_COMMAND: "STATUS" }, { command: "STATUS" }],
      ["of VERSION", { CNI_COMMAND: "VERSION" }, { command: "VERSION" }],
      [
        "an unknown command",
        { CNI_COMMAND: "add" },
        "4 CNI_COMMAND=add: must be ADD, DEL, CHECK, GC, STATUS or VERSION"
      ],
      [
        "every missing variable",
        { CNI_COMMAND: "CHECK", CNI_IFNAME: "eth0", CNI_NETNS: "" },
        "4 required env variables [CNI_CONTAINERID,CNI_NETNS] missing"
      ],
      [
        "every wrong variable",
        { CNI_COMMAND: "DEL", CNI_CONTAINERID: "../x", CNI_IFNAME: "a b" },
        "4 CNI_CONTAINERID=../x: must be alphanumeric, with _ . - after the first character; CNI_IFNAME=a b: must be the name of an interface, at most 15 bytes without / : or space"
      ],
      [
        "an interface's name that is too long",
        { CNI_COMMAND: "DEL", CNI_CONTAINERID: "x", CNI_IFNAME: "sixteen-bytes-ok" },
        "4 CNI_IFNAME=sixteen-bytes-ok: must be the name of an interface, at most 15 bytes without / : or space"
      ]
    ]
  for (const [title, variables, expected] of rows)
    it(title, () =>
      assert.deepStrictEqual(
        outcome(() => invocationOf(variables)),
        expected
      )
    )

  it("name an owner, hashed where the name is longer than an owner may be", () => {
    assert.strictEqual(ownerOf({ containerId: "c1", ifName: "eth0" }), "cni:c1/eth0")
    const long = ownerOf({ containerId: "x".repeat(200), ifName: "eth0" })
    assert.match(long, /^cni:x{40}~[0-9a-f]{32}$/)
    assert.notStrictEqual(long, ownerOf({ containerId: "x".repeat(200), ifName: "eth1" }))
    assert.match(ownerOf({ containerId: "c1", ifName: "é" }), /^cni:c1~[0-9a-f]{32}$/)
  })
})

describe("a network configuration", () => {
  it("is read in every version, and in 0.1.0 where it names none", () => {
    for (const version of supportedVersions)
      assert.strictEqual(config({ cniVersion: version }).version, version)
    assert.strictEqual(configOf('{"name":"net"}', "DEL").version, "0.1.0")
  })

  it("names the plugin's address; a state directory in it is ignored", () => {
    assert.strictEqual(config({ socket: "/run/x.sock", state: 5 }).socket, "/run/x.sock")
  })

  const rows: ReadonlyArray<readonly [title: string, run: () => unknown, expected: string]> = [
    [
      "an unknown version",
      () => config({ cniVersion: "2.0.0" }),
      '1 incompatible CNI versions: config is "2.0.0", plugin supports ["0.1.0","0.2.0","0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]'
    ],
    ["a version that is not a string", () => config({ cniVersion: 1 }), "6 cniVersion = 1: must be a string"],
    [
      "CHECK before 0.4.0",
      () => config({ cniVersion: "0.3.1" }, "CHECK"),
      "1 config version does not allow CHECK: it came with 0.4.0, the configuration is of 0.3.1"
    ],
    [
      "GC before 1.1.0",
      () => config({ cniVersion: "1.0.0" }, "GC"),
      "1 config version does not allow GC: it came with 1.1.0, the configuration is of 1.0.0"
    ],
    [
      "STATUS before 1.1.0",
      () => config({ cniVersion: "1.0.0" }, "STATUS"),
      "1 config version does not allow STATUS: it came with 1.1.0, the configuration is of 1.0.0"
    ],
    [
      "no JSON",
      () => configOf("{", "ADD"),
      "6 the network configuration on stdin is no JSON: Expected property name or '}' in JSON at position 1 (line 1 column 2)"
    ],
    ["no object", () => configOf("[1]", "ADD"), "6 the network configuration on stdin is no object: [1]"],
    [
      "no name, and a relative path",
      () => configOf('{"cniVersion":"1.0.0","socket":"p.sock"}', "ADD"),
      '7 invalid network configuration: name = missing: must be the name of a network, alphanumeric, with _ . - after the first character; socket = "p.sock": must be an absolute path'
    ]
  ]
  for (const [title, run, expected] of rows)
    it(`refuses ${title}`, () => assert.strictEqual(outcome(run), expected))
})

describe("the port mappings of a configuration", () => {
  const publication = (fields: object) => publicationOf(config(fields))
  const mapping = (fields: object) => ({ runtimeConfig: { portMappings: [fields] } })

  it("are none where the runtime requests none", () => {
    for (const fields of [{}, { runtimeConfig: {} }, { runtimeConfig: { portMappings: null } }])
      assert.deepStrictEqual(publication(fields), {
        mappings: [],
        labels: { "portmapper.cni-network": "net" }
      })
  })

  it("default to TCP and every address, and carry the labels of the configuration", () =>
    assert.deepStrictEqual(
      publication({
        labels: { "portmapper.allow": "10.0.0.0/8" },
        runtimeConfig: {
          portMappings: [
            { hostPort: 8080, containerPort: 80 },
            { hostPort: 53, containerPort: 5353, protocol: "UDP", hostIP: "127.0.0.1" },
            { hostPort: 1, containerPort: 65535, protocol: "sctp", hostIP: "" }
          ]
        }
      }),
      {
        mappings: [
          { protocol: "tcp", hostPort: 8080, containerPort: 80, hostIp: "" },
          { protocol: "udp", hostPort: 53, containerPort: 5353, hostIp: "127.0.0.1" },
          { protocol: "sctp", hostPort: 1, containerPort: 65535, hostIp: "" }
        ],
        labels: { "portmapper.allow": "10.0.0.0/8", "portmapper.cni-network": "net" }
      }
    ))

  it("accept the reference plugin's options that have no effect here", () => {
    const options = { snat: false, masqAll: false, markMasqBit: 14, externalSetMarkChain: "KUBE-MARK-MASQ" }
    const rest = { backend: "iptables", conditionsV4: [], conditionsV6: null }
    assert.deepStrictEqual(publication({ ...options, ...rest }).mappings, [])
    assert.deepStrictEqual(publication({ backend: "nftables", conditionsV4: [""] }).mappings, [])
  })

  const rows: ReadonlyArray<readonly [title: string, fields: object, expected: string]> = [
    [
      "masqAll",
      { masqAll: true },
      '2 unsupported field: masqAll = true: masqAll: sources are kept; for a relay that shows the host\'s address set "labels": {"portmapper.mode": "proxy"}'
    ],
    [
      "conditions and an unknown backend",
      { conditionsV4: ["-d", "1.2.3.4"], backend: "ebpf" },
      '2 unsupported field: conditionsV4 = ["-d","1.2.3.4"], backend = "ebpf": conditionsV4: no rules of iptables or nft are taken; to let in some sources only set "labels": {"portmapper.allow": "10.0.0.0/8"}; backend: iptables and nftables are known, and make no difference here'
    ],
    [
      "every wrong field of a mapping",
      mapping({ hostPort: 0, containerPort: "80", protocol: "icmp", hostIP: "localhost" }),
      '7 invalid network configuration: runtimeConfig.portMappings[0].protocol = "icmp": must be tcp, udp, sctp; runtimeConfig.portMappings[0].hostPort = 0: must be an integer from 1 to 65535; runtimeConfig.portMappings[0].containerPort = "80": must be an integer from 1 to 65535; runtimeConfig.portMappings[0].hostIP = "localhost": must be an IPv4 or IPv6 address'
    ],
    [
      "mappings that are not an array",
      { runtimeConfig: { portMappings: {} } },
      '7 invalid network configuration: runtimeConfig = {"portMappings":{}}: must be an object whose portMappings are an array'
    ],
    [
      "labels that are not strings",
      { labels: { a: 1 } },
      '7 invalid network configuration: labels = {"a":1}: must be an object of strings'
    ]
  ]
  for (const [title, fields, expected] of rows)
    it(`refuses ${title}`, () =>
      assert.strictEqual(
        outcome(() => publication(fields)),
        expected
      ))
})

describe("the valid attachments of GC", () => {
  const valid = (fields: object) => outcome(() => validAttachments(config(fields, "GC")))

  it("come from the specification's key or from libcni's, or are none", () => {
    const attachments = [{ containerID: "c1", ifname: "eth0" }]
    const expected = [{ containerId: "c1", ifName: "eth0" }]
    assert.deepStrictEqual(valid({ "cni.dev/valid-attachments": attachments }), expected)
    assert.deepStrictEqual(valid({ "cni.dev/attachments": attachments }), expected)
    assert.deepStrictEqual(valid({}), [])
  })

  it("are refused as a whole where one is unreadable: otherwise its ports would be freed", () =>
    assert.strictEqual(
      valid({ "cni.dev/valid-attachments": [{ containerID: "c1" }] }),
      '7 invalid network configuration: cni.dev/valid-attachments[0] = {"containerID":"c1"}: must have a containerID and an ifname'
    ))
})
