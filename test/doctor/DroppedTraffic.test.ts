import { execFile } from "node:child_process"
import { join } from "node:path"
import { promisify } from "node:util"
import { assert, it } from "@effect/vitest"
import { droppedTraffic, publishedOf } from "../../adapters/doctor/DroppedTraffic.ts"
import type { ListedMapping, MappingState } from "../../src/protocol/Driver.ts"
import { describeInNamespace, ip, run } from "../lab/ThreadNamespace.ts"
import { listedMapping } from "../support/mappings.ts"

const interfaces = { towards: () => "docker0", outside: () => "eth0", addressOf: () => undefined }

it.each<readonly [state: MappingState, backend: string, traced: ReadonlyArray<string>]>([
  ["live", "172.17.0.2", ["172.17.0.2 redirected"]],
  ["drained", "172.17.0.2", ["172.17.0.2 redirected"]],
  ["live", "fd00::2", ["fd00::2 relayed"]],
  ["conflicted", "172.17.0.2", []],
  ["standby", "172.17.0.2", []],
  ["asleep", "100::1", []],
  ["drained", "100::1", []]
])("traces the packets of a mapping that is %s and leads to %s: %j", (state, backendIp, traced) => {
  assert.deepStrictEqual(
    publishedOf(listedMapping({ state, backendIp }), interfaces).map(
      ({ backend, traffic }) => `${backend.address.text} ${traffic}`
    ),
    traced
  )
})

const mapping = (more: Partial<ListedMapping> = {}) => listedMapping({ backendIp: "172.31.0.2", ...more })

/** What is found of each hook that drops everything, without its remedy. */
const found = (...mappings: ReadonlyArray<ListedMapping>) =>
  droppedTraffic(mappings).checks.map(({ status, found }) => `${status}: ${found}`)

/** The hooks and families at which packets of a mapping are dropped. */
const hooks = (...mappings: ReadonlyArray<ListedMapping>) => [
  ...new Set(droppedTraffic(mappings).drops.map(({ hook, traffic }) => `${traffic} at ${hook}`))
]

const chains = (...hooks: ReadonlyArray<string>) => `table inet mine {
  ${hooks.map((hook) => `chain ${hook} {\ntype filter hook ${hook} priority 0; policy drop\n}\n`).join("")}
}`

const dropping = (...hooks: ReadonlyArray<string>) => run("nft -f -", `flush ruleset\n${chains(...hooks)}`)

const links = [
  "link add up0 type veth peer name far0",
  "addr add 10.0.0.1/24 dev up0",
  "link set far0 up",
  "link set up0 up",
  "route add default via 10.0.0.254",
  ...["br0 172.31.0.1/24", "br1 172.32.0.1/24"].flatMap((text) => {
    const [bridge, address] = text.split(" ")
    return [`link add ${bridge} type bridge`, `addr add ${address} dev ${bridge}`, `link set ${bridge} up`]
  })
]

/** As `found`, for a process that sees the bridges of its namespace in a /sys of its own. */
const foundWithBridges = async (
  ...mappings: ReadonlyArray<ListedMapping>
): Promise<ReadonlyArray<string>> => {
  const module = join(import.meta.dirname, "../../adapters/doctor/DroppedTraffic.ts")
  const program = `
    const { droppedTraffic } = await import(process.argv[1])
    console.log(JSON.stringify(droppedTraffic(JSON.parse(process.argv[2])).checks.map(({ found }) => found)))`
  const script = `mount -t sysfs none /sys
    ${links.map((command) => `ip ${command}`).join("\n")}
    nft -f - <<'END'
${chains("forward")}
END
    exec "$@"`
  const node = [process.execPath, "--input-type=module", "-e", program, module, JSON.stringify(mappings)]
  const unshared = ["--net", "--mount", "sh", "-ec", script, "sh", ...node]
  return JSON.parse((await promisify(execFile)("unshare", unshared)).stdout)
}

describeInNamespace("traffic that other rules drop", () => {
  for (const command of links) ip(command)

  it("is none where nothing drops it", () => {
    run("nft flush ruleset")
    run("nft add table inet mine")
    assert.deepStrictEqual(found(mapping()), ["ok: nothing in 1 tables of others drops published traffic"])
    assert.deepStrictEqual(found(), ["ok: nothing in 1 tables of others drops published traffic"])
  })

  it("is that of the ports that are mapped", () => {
    dropping("forward")
    assert.deepStrictEqual(
      found(mapping(), mapping({ frontendPort: 8081 }), mapping({ frontendPort: 8082 })),
      [
        "warn: table inet mine (nft), chain forward, at forward, drops redirected traffic for 0.0.0.0:8080/tcp and 2 more: policy drop"
      ]
    )
  })

  it("is also that between bridges, of one port of each", async () => {
    const where = "table inet mine (nft), chain forward, at forward"
    assert.deepStrictEqual(
      await foundWithBridges(
        mapping(),
        mapping({ frontendPort: 8081 }),
        mapping({ frontendPort: 8082, backendIp: "172.32.0.2" }),
        mapping({ frontendPort: 8083, mode: "proxy" })
      ),
      [
        `${where}, drops redirected traffic for 0.0.0.0:8080/tcp and 2 more: policy drop`,
        `${where}, drops redirected traffic between bridges for 0.0.0.0:8081/tcp and 1 more: policy drop`
      ]
    )
    assert.deepStrictEqual(await foundWithBridges(), [`${where}, would drop redirected traffic: policy drop`])
  })

  it("is traced for imagined ports of both families where none is mapped", () => {
    dropping("input")
    assert.deepStrictEqual(found(), [
      "warn: table inet mine (nft), chain input, at input, would drop relayed traffic: policy drop"
    ])
    const { drops } = droppedTraffic([])
    assert.deepStrictEqual(
      drops.flatMap(({ ports }) => ports),
      ["0.0.0.0:8080/tcp", "[::]:8080/tcp"]
    )
  })

  it("goes by the way of each port: the kernel's, the relay's, or the network's", () => {
    dropping("input", "forward")
    assert.deepStrictEqual(hooks(mapping()), ["redirected at forward"])
    assert.deepStrictEqual(hooks(mapping({ mode: "routed" })), ["routed at forward"])
    assert.deepStrictEqual(hooks(mapping({ mode: "proxy" })), ["relayed at input"])
    assert.deepStrictEqual(hooks(mapping({ frontendIp: "::" })), ["relayed at input"])
  })

  it("is no traffic of a port only from this host", () => {
    dropping("forward")
    const silent = [mapping({ frontendIp: "127.0.0.1" }), mapping({ frontendIp: "" })]
    assert.deepStrictEqual(hooks(...silent, mapping({ mode: "routed" })), ["routed at forward"])
  })
})
