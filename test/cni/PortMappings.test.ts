import { assert, describe, it } from "@effect/vitest"
import type { PortMapping } from "../../adapters/cni/NetworkConfig.ts"
import { bindingKey, containerAddresses, groupsOf } from "../../adapters/cni/PortMappings.ts"

const mapping = (fields: Partial<PortMapping>): PortMapping => ({
  protocol: "tcp",
  hostPort: 8080,
  containerPort: 80,
  hostIp: "",
  ...fields
})

const v4 = "10.88.0.2"
const v6 = "fd00::2"

const groups = (mappings: ReadonlyArray<Partial<PortMapping>>, addresses = { v4, v6 } as Addresses) =>
  groupsOf(mappings.map(mapping), addresses).map((group) =>
    group.map(
      ({ BackendIP, BackendPort, FrontendIP, FrontendPort, FrontendPortEnd, Proto }) =>
        `${Proto} ${FrontendIP} ${FrontendPort}-${FrontendPortEnd} ${BackendIP} ${BackendPort}`
    )
  )

type Addresses = Parameters<typeof groupsOf>[1]

describe("the groups of port mappings", () => {
  it("bind every host address of the families that the container has", () => {
    assert.deepStrictEqual(groups([{}]), [["6 0.0.0.0 8080-8080 10.88.0.2 80", "6 :: 8080-8080 fd00::2 80"]])
    assert.deepStrictEqual(groups([{ protocol: "udp" }], { v4, v6: undefined }), [
      ["17 0.0.0.0 8080-8080 10.88.0.2 80"]
    ])
    assert.deepStrictEqual(groups([{ protocol: "sctp" }], { v4: undefined, v6 }), [
      ["132 :: 8080-8080 fd00::2 80"]
    ])
  })

  it("lead from a host address to the container's address of the same family, else to the other", () => {
    assert.deepStrictEqual(groups([{ hostIp: "127.0.0.1" }]), [["6 127.0.0.1 8080-8080 10.88.0.2 80"]])
    assert.deepStrictEqual(groups([{ hostIp: "::1" }]), [["6 ::1 8080-8080 fd00::2 80"]])
    assert.deepStrictEqual(groups([{ hostIp: "::ffff:7f00:1" }]), [
      ["6 ::ffff:7f00:1 8080-8080 10.88.0.2 80"]
    ])
    assert.deepStrictEqual(groups([{ hostIp: "::1" }], { v4, v6: undefined }), [
      ["6 ::1 8080-8080 10.88.0.2 80"]
    ])
    assert.deepStrictEqual(groups([{ hostIp: "::ffff:127.0.0.1" }]), [
      ["6 ::ffff:127.0.0.1 8080-8080 10.88.0.2 80"]
    ])
  })

  it("are one for each protocol, host port and container port, with every host address once", () =>
    assert.deepStrictEqual(
      groups(
        [
          { hostIp: "127.0.0.1" },
          { hostIp: "::1" },
          { hostIp: "0:0:0:0:0:0:0:1" },
          { hostIp: "127.0.0.1" },
          { protocol: "udp" },
          { hostPort: 8081 }
        ],
        { v4, v6: undefined }
      ),
      [
        ["6 127.0.0.1 8080-8080 10.88.0.2 80", "6 0:0:0:0:0:0:0:1 8080-8080 10.88.0.2 80"],
        ["17 0.0.0.0 8080-8080 10.88.0.2 80"],
        ["6 0.0.0.0 8081-8081 10.88.0.2 80"]
      ]
    ))
})

describe("the addresses of a container", () => {
  const of = (result: object) => containerAddresses({ ...result }, { containerId: "c1", ifName: "eth0" })

  it("are the first of each family on its interface", () =>
    assert.deepStrictEqual(
      of({
        interfaces: [{ name: "cni0" }, { name: "eth0" }, { name: "eth0", sandbox: "/run/netns/c1" }],
        ips: [
          { address: "10.88.0.1/16", interface: 0 },
          { address: "10.88.0.9/16", interface: 1 },
          { address: "10.88.0.2/16", interface: 2 },
          { address: "10.88.0.3/16", interface: 2 },
          { address: "fd00::2/64", interface: 2 }
        ]
      }),
      { v4, v6 }
    ))

  it("may have no interface, or an index that the result does not have", () => {
    assert.deepStrictEqual(of({ ips: [{ version: "4", address: "10.88.0.2/16" }] }), { v4, v6: undefined })
    assert.deepStrictEqual(of({ interfaces: [], ips: [{ address: "fd00::2/64", interface: 3 }] }), {
      v4: undefined,
      v6
    })
    assert.deepStrictEqual(of({ interfaces: [{ name: "cni0" }], ips: [{ address: v4, interface: -1 }] }), {
      v4,
      v6: undefined
    })
  })

  it("are one of each family in a result before 0.3.0", () => {
    assert.deepStrictEqual(of({ ip4: { ip: "10.88.0.2/16" }, ip6: { ip: "fd00::2/64" } }), { v4, v6 })
    assert.deepStrictEqual(of({ ip4: { ip: "10.88.0.2/16" } }), { v4, v6: undefined })
  })

  it("are an error where there is none", () => {
    assert.throws(() => of({ ips: [] }), "invalid network configuration")
    assert.throws(
      () => of({ ips: [{ address: "nonsense" }, null, { address: 5 }] }),
      "invalid network configuration"
    )
  })
})

describe("a binding's key", () => {
  it("is equal for all spellings of its addresses", () => {
    const key = (FrontendIP: string, BackendIP: string) =>
      bindingKey({ Proto: 6, FrontendIP, FrontendPort: 80, BackendIP, BackendPort: 80 })
    assert.strictEqual(key("::", "FD00:0::2"), key("0::0", "fd00::2"))
    for (const mapped of ["::ffff:10.0.0.1", "::FFFF:a00:1", "0:0:0:0:0:ffff:a00:1"])
      assert.strictEqual(key(mapped, v4), key("10.0.0.1", v4))
    assert.notStrictEqual(key("fe80::1%eth0", v4), key("fe80::1%eth1", v4))
  })
})
