import { assert, describe, it } from "@effect/vitest"
import { findDrops } from "../../adapters/doctor/Drops.ts"
import { parseIptables } from "../../adapters/doctor/Iptables.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import { dropsIn, filter, published } from "./published.ts"

const table = (name: string, chain: string, policy: "ACCEPT" | "DROP", ...rules: ReadonlyArray<string>) =>
  parseIptables(
    [`*${name}`, `:${chain} ${policy} [0:0]`, ...rules, "COMMIT"].join("\n"),
    "iptables-legacy",
    "ip"
  )

describe("drops of published traffic", () => {
  it("name each rule once for each kind of traffic, with the ports whose packets it drops", () => {
    const tables = filter("-A FORWARD -p tcp -j DROP\n-A INPUT -p tcp -j DROP")
    const drops = findDrops({ tables, acceptMark: 0 }, [
      published(),
      published({ port: 8081 }),
      published({ port: 8081 }),
      published({ port: 8082, traffic: "relayed" }),
      published({ port: 8083, protocol: "udp" }),
      published({ port: 8084, traffic: "routed" })
    ])
    assert.deepStrictEqual(
      drops.map(({ table, base, traffic, ports }) => [table, base, traffic, ports]),
      [
        ["ip filter (iptables-nft)", "FORWARD", "redirected", ["0.0.0.0:8080/tcp", "0.0.0.0:8081/tcp"]],
        ["ip filter (iptables-nft)", "INPUT", "relayed", ["0.0.0.0:8082/tcp"]],
        ["ip filter (iptables-nft)", "FORWARD", "routed", ["0.0.0.0:8084/tcp"]]
      ]
    )
  })

  it("go by a mark that an earlier chain set, whatever the order in which the tables are listed", () => {
    const rule = "-A PREROUTING -m mark --mark 0x4 -j DROP"
    const marking = "-A PREROUTING -j MARK --set-xmark 0x4/0xffffffff"
    assert.deepStrictEqual(
      dropsIn([
        ...table("mangle", "PREROUTING", "ACCEPT", rule),
        ...table("raw", "PREROUTING", "ACCEPT", marking)
      ]),
      [`prerouting PREROUTING: ${rule}`]
    )
    assert.deepStrictEqual(
      dropsIn([
        ...table("mangle", "PREROUTING", "ACCEPT", marking),
        ...table("raw", "PREROUTING", "ACCEPT", rule)
      ]),
      []
    )
    const forward = "-A FORWARD -m mark --mark 0x4 -j DROP"
    assert.deepStrictEqual(
      dropsIn([
        ...table("raw", "PREROUTING", "ACCEPT", marking),
        ...table("filter", "FORWARD", "ACCEPT", forward)
      ]),
      [`forward FORWARD: ${forward}`]
    )
  })

  it("are all of those on the way, those behind the first included", () => {
    assert.deepStrictEqual(
      dropsIn([...table("filter", "FORWARD", "DROP"), ...table("raw", "PREROUTING", "DROP")]),
      ["prerouting PREROUTING: policy drop", "forward FORWARD: policy drop"]
    )
  })

  it("include those of the reply packets", () => {
    assert.deepStrictEqual(dropsIn(filter("-A FORWARD -i docker0 -j DROP")), [
      "forward FORWARD: -A FORWARD -i docker0 -j DROP"
    ])
    assert.deepStrictEqual(
      dropsIn(
        filter("-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT\n-A FORWARD -i docker0 -j DROP")
      ),
      []
    )
  })

  it("are found before and after address translation, each by the packet's fields there", () => {
    const table = (name: string, rule: string) =>
      parseIptables(`*${name}\n:PREROUTING ACCEPT [0:0]\n${rule}\nCOMMIT`, "iptables-legacy", "ip")
    const before = "-A PREROUTING -p tcp -m tcp --dport 8080 -j DROP"
    const behind = "-A PREROUTING -d 172.17.0.2/32 -j DROP"
    assert.deepStrictEqual(dropsIn(table("raw", before)), [`prerouting PREROUTING: ${before}`])
    assert.deepStrictEqual(dropsIn(table("mangle", before)), [`prerouting PREROUTING: ${before}`])
    assert.deepStrictEqual(dropsIn(table("raw", behind)), [])
    assert.deepStrictEqual(dropsIn(table("nat", before)), [])
  })

  it("affect only their own family", () => {
    const tables = parseIptables("*filter\n:FORWARD DROP [0:0]\nCOMMIT", "iptables-nft", "ip6")
    assert.deepStrictEqual(dropsIn(tables), [])
    assert.deepStrictEqual(
      dropsIn(tables, {
        host: addressUnsafe("::"),
        spokenTo: undefined,
        backend: { address: addressUnsafe("fd00::2"), port: 80 }
      }),
      ["forward FORWARD: policy drop"]
    )
  })
})

/** The rules of Docker Engine 28, for one container. */
const docker = (open: string) => `
  -P FORWARD DROP
  -A FORWARD -j DOCKER-USER
  -A FORWARD -j DOCKER-FORWARD
  -N DOCKER-USER
  ${open}
  -A DOCKER ! -i docker0 -o docker0 -j DROP
  -A DOCKER-BRIDGE -o docker0 -j DOCKER
  -A DOCKER-CT -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
  -A DOCKER-FORWARD -j DOCKER-CT
  -A DOCKER-FORWARD -j DOCKER-ISOLATION-STAGE-1
  -A DOCKER-FORWARD -j DOCKER-BRIDGE
  -A DOCKER-FORWARD -i docker0 -j ACCEPT
  -A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
  -A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP`

describe("Docker's own chains", () => {
  it("drop nothing that the Engine opened, by a rule for the port or for the mark", () => {
    const port = "-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT"
    assert.deepStrictEqual(dropsIn(filter(docker(port))), [])
    const mark = "-A DOCKER-USER -m mark --mark 0x5000/0xf000 -j ACCEPT"
    assert.deepStrictEqual(dropsIn(filter(docker(mark)), {}, 0x5000), [])
  })

  it("are taken to admit a port not mapped yet, since its rule comes with the mapping", () => {
    assert.deepStrictEqual(dropsIn(filter(docker("")), { imagined: true }), [])
    assert.deepStrictEqual(dropsIn(filter(docker("-A DOCKER-USER -i eth0 -j DROP")), { imagined: true }), [
      "forward DOCKER-USER: -A DOCKER-USER -i eth0 -j DROP"
    ])
  })

  it("drop replies of another network's containers, unless replies carry the mark, too", () => {
    const isolated = `
      -P FORWARD DROP
      -N DOCKER-USER
      -A FORWARD -j DOCKER-USER
      -A FORWARD -j DOCKER-ISOLATION-STAGE-1
      -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
      -A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
      -A DOCKER-ISOLATION-STAGE-2 -o br-back -j DROP`
    const open = `${isolated}
      -A DOCKER-USER -m conntrack --ctstate NEW -j ACCEPT`
    const mark = `${isolated}
      -A DOCKER-USER -m mark --mark 0x1000/0x1000 -m conntrack --ctstate DNAT -j ACCEPT`
    const neighbour = { outside: "br-back", neighbour: true }
    assert.deepStrictEqual(dropsIn(filter(open), neighbour), [
      "forward DOCKER-ISOLATION-STAGE-2: -A DOCKER-ISOLATION-STAGE-2 -o br-back -j DROP"
    ])
    assert.deepStrictEqual(dropsIn(filter(mark), neighbour, 0x1000), [])
  })

  it("drop a mapping that no rule opens", () => {
    assert.deepStrictEqual(dropsIn(filter(docker(""))), [
      "forward DOCKER: -A DOCKER ! -i docker0 -o docker0 -j DROP"
    ])
  })
})
