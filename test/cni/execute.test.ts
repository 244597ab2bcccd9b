/**
 * The plugin as a process, beside an in-memory mapper served on a socket: stdout and exit status, to the byte,
 * whether Node executes the command or the running plugin does.
 */
import { assert, describe } from "@effect/vitest"
import { Effect, type Scope } from "effect"
import { supportedVersions } from "../../adapters/cni/NetworkConfig.ts"
import { executeHandler, executePath } from "../../adapters/cni/Served.ts"
import { PortMapper } from "../../src/mapper/PortMapper.ts"
import { Driver } from "../../src/protocol/Driver.ts"
import type { Need } from "../lab/Capabilities.ts"
import { testNeeding } from "../lab/describeLab.ts"
import {
  bridgeResult,
  type Cni,
  cniByFront,
  cniByNode,
  type Ports,
  pathOf,
  portMappings
} from "../support/cni.ts"
import { socketFor } from "../support/socket.ts"

const web: Ports = { hostPort: 8080, containerPort: 80, protocol: "tcp" }
const result = bridgeResult("10.88.0.2/16")

interface Network {
  readonly name?: string
  readonly cniVersion?: string
  readonly prevResult?: object
  readonly labels?: object
}

interface Way {
  readonly name: string
  readonly cni: Effect.Effect<Cni, never, Scope.Scope>
  readonly needs: ReadonlyArray<Need>
}

const ways: ReadonlyArray<Way> = [
  { name: "by Node", cni: Effect.succeed(cniByNode), needs: [] },
  {
    name: "by the running plugin",
    // Without Node in its PATH, so that it can't fall back.
    cni: Effect.map(
      Effect.suspend(() => pathOf("cat", "curl")),
      cniByFront
    ),
    needs: ["curl"]
  }
]

/** An in-memory mapper, and the list of its ports. */
const test = (
  title: string,
  body: (host: {
    readonly cni: Cni
    readonly config: (network?: Network, ...ports: ReadonlyArray<Ports>) => object
    readonly ports: Effect.Effect<ReadonlyArray<string>>
  }) => Effect.Effect<void, unknown, Scope.Scope>
) =>
  ways.forEach((way) => {
    testNeeding(`${title}, ${way.name}`, way.needs, () =>
      Effect.runPromise(
        Effect.gen(function* () {
          const driver = yield* Driver
          const socket = yield* socketFor(driver, { handlers: { [executePath]: executeHandler } })
          yield* body({
            cni: yield* way.cni,
            config: (network = {}, ...ports) => ({
              cniVersion: "1.0.0",
              name: "net",
              type: "portmapper-cni",
              socket,
              ...network,
              ...portMappings(...ports)
            }),
            ports: Effect.map(driver.listPorts ?? Effect.succeed([]), (listed) =>
              listed
                .map(
                  ({ owner, frontendIp, frontendPort, backendIp, backendPort, labels }) =>
                    `${owner} ${frontendIp} ${frontendPort} -> ${backendIp} ${backendPort} ${labels.get("portmapper.cni-network")}`
                )
                .sort()
            ).pipe(Effect.orDie)
          })
        }).pipe(Effect.scoped, Effect.provide(PortMapper.layerMemory()))
      )
    )
  })

const done = { status: 0, stdout: "", stderr: "" }
const answered = (answer: object) => ({ status: 0, stdout: `${JSON.stringify(answer)}\n`, stderr: "" })
const failed = (error: object) => ({ status: 1, stdout: `${JSON.stringify(error)}\n`, stderr: "" })

describe("ADD", () => {
  test("publishes the requested ports, and passes the result on unchanged", ({ cni, config, ports }) =>
    Effect.gen(function* () {
      const asked = config({ prevResult: result }, web, { ...web, hostPort: 53, protocol: "udp" })
      assert.deepStrictEqual(yield* cni("ADD", asked), answered(result))
      assert.deepStrictEqual(yield* ports, [
        "cni:c1/eth0 0.0.0.0 53 -> 10.88.0.2 80 net",
        "cni:c1/eth0 0.0.0.0 8080 -> 10.88.0.2 80 net"
      ])
      assert.deepStrictEqual(yield* cni("ADD", asked), answered(result))
      assert.strictEqual((yield* ports).length, 2)
    }))

  test("passes on a result of every version, unknown fields included", ({ cni, config }) =>
    Effect.forEach(
      supportedVersions,
      (cniVersion) =>
        Effect.gen(function* () {
          const old = { cniVersion, ip4: { ip: "10.88.0.2/16" }, dns: {}, unknown: [1, null, "é"] }
          const prevResult =
            cniVersion.startsWith("0.1") || cniVersion === "0.2.0" ? old : { ...result, cniVersion }
          const asked = config({ cniVersion, prevResult }, web)
          assert.deepStrictEqual(yield* cni("ADD", asked), answered(prevResult), cniVersion)
        }),
      { concurrency: 2, discard: true }
    ))

  test("publishes all or nothing, and leaves other owners' ports alone", ({ cni, config, ports }) =>
    Effect.gen(function* () {
      const other = { CNI_CONTAINERID: "other" }
      const prevResult = bridgeResult("10.88.0.3/16")
      yield* cni("ADD", config({ prevResult: bridgeResult("10.88.0.2/16") }, web), other)
      const before = yield* ports
      const asked = config({ prevResult }, { ...web, hostPort: 8000 }, { ...web, hostPort: 8001 }, web, {
        ...web,
        hostPort: 8002
      })
      const { status, stdout } = yield* cni("ADD", asked)
      const { msg, ...error } = JSON.parse(stdout)
      assert.match(
        msg,
        /^bind for 0\.0\.0\.0:8080\/tcp failed: port is already allocated \(held by cni:other\/eth0 for 10\.88\.0\.2 port 80 since .*\)$/
      )
      assert.deepStrictEqual(
        { status, error },
        {
          status: 1,
          error: { cniVersion: "1.0.0", code: 100, details: "publishing 8080/tcp to 10.88.0.3:80" }
        }
      )
      assert.deepStrictEqual(yield* ports, before)
    }))

  test("publishes all or nothing when the groups need more than one call", ({ cni, config, ports }) =>
    Effect.gen(function* () {
      const many = Array.from({ length: 600 }, (_, index) => ({ ...web, hostPort: 20_000 + index }))
      const network = { prevResult: result }
      assert.deepStrictEqual(yield* cni("ADD", config(network, ...many)), answered(result))
      assert.lengthOf(yield* ports, 600)
      assert.deepStrictEqual(yield* cni("DEL", config()), done)
      yield* cni("ADD", config({ prevResult: bridgeResult("10.88.0.3/16") }, { ...web, hostPort: 20_599 }), {
        CNI_CONTAINERID: "other"
      })
      yield* cni("ADD", config(network, { ...web, hostPort: 20_001 }))
      const { stdout } = yield* cni("ADD", config(network, ...many))
      assert.strictEqual(JSON.parse(stdout).details, "publishing 20599/tcp to 10.88.0.2:80")
      assert.deepStrictEqual(yield* ports, [
        "cni:c1/eth0 0.0.0.0 20001 -> 10.88.0.2 80 net",
        "cni:other/eth0 0.0.0.0 20599 -> 10.88.0.3 80 net"
      ])
    }))

  test("publishes for the sources of an allow-list label, and refuses a wrong label", ({
    cni,
    config,
    ports
  }) =>
    Effect.gen(function* () {
      const network = { prevResult: result, labels: { "portmapper.allow": "10.0.0.0/33" } }
      const { status, stdout } = yield* cni("ADD", config(network, web))
      assert.strictEqual(status, 1)
      const { code, msg } = JSON.parse(stdout)
      assert.strictEqual(code, 7)
      assert.match(msg, /^bad request: Labels\["portmapper\.allow"\] = "10\.0\.0\.0\/33": must be /)
      assert.deepStrictEqual(yield* ports, [])
    }))

  test("needs a result with an address of the interface", ({ cni, config }) =>
    Effect.gen(function* () {
      const error = { cniVersion: "1.0.0", code: 7, msg: "invalid network configuration" }
      assert.deepStrictEqual(
        yield* cni("ADD", config({ prevResult: bridgeResult() }, web)),
        failed({ ...error, details: "prevResult has no address of eth0 that ports could lead to" })
      )
    }))
})

describe("DEL", () => {
  test("succeeds without an ADD before it, repeatedly, with only a network name", ({ cni, config, ports }) =>
    Effect.gen(function* () {
      yield* cni("ADD", config({ prevResult: result }, web), { CNI_CONTAINERID: "other" })
      assert.deepStrictEqual(yield* cni("DEL", config()), done)
      assert.deepStrictEqual(yield* cni("DEL", config(), { CNI_CONTAINERID: "other" }), done)
      assert.deepStrictEqual(yield* cni("DEL", config({ prevResult: result }, web)), done)
      assert.deepStrictEqual(yield* ports, [])
    }))

  test("succeeds with fields that ADD refuses", ({ cni, config, ports }) =>
    Effect.gen(function* () {
      yield* cni("ADD", config({ prevResult: result }, web))
      const odd = { ...config({}, { ...web, hostPort: 0 }), masqAll: true, prevResult: 5 }
      assert.deepStrictEqual(yield* cni("DEL", odd), done)
      assert.deepStrictEqual(yield* ports, [])
    }))

  test("leaves a port that the next container at the address has taken", ({ cni, config, ports }) =>
    Effect.gen(function* () {
      const asked = config({ prevResult: result }, web)
      yield* cni("ADD", asked)
      assert.deepStrictEqual(yield* cni("ADD", asked, { CNI_CONTAINERID: "next" }), answered(result))
      assert.deepStrictEqual(yield* cni("DEL", asked), done)
      assert.deepStrictEqual(yield* ports, ["cni:next/eth0 0.0.0.0 8080 -> 10.88.0.2 80 net"])
    }))
})

describe("CHECK", () => {
  test("reports ports that are no longer published", ({ cni, config }) =>
    Effect.gen(function* () {
      const asked = config({ prevResult: bridgeResult("10.88.0.2/16", "fd00::2/64") }, web)
      yield* cni("ADD", asked)
      assert.deepStrictEqual(yield* cni("CHECK", asked), done)
      yield* cni("DEL", asked)
      assert.deepStrictEqual(
        yield* cni("CHECK", asked),
        failed({
          cniVersion: "1.0.0",
          code: 101,
          msg: "ports are not published as they should be",
          details: "0.0.0.0:8080/tcp is not published; [::]:8080/tcp is not published"
        })
      )
      assert.deepStrictEqual(yield* cni("CHECK", config({ prevResult: result })), done)
    }))
})

describe("GC", () => {
  test("frees ports of the network that no valid attachment has", ({ cni, config, ports }) =>
    Effect.gen(function* () {
      for (const [id, name, port] of [
        ["c1", "net", 8001],
        ["c2", "net", 8002],
        ["c3", "other", 8003]
      ] as const)
        yield* cni("ADD", config({ name, prevResult: result }, { ...web, hostPort: port }), {
          CNI_CONTAINERID: id
        })
      const network = config({ cniVersion: "1.1.0" })
      const valid = [{ containerID: "c2", ifname: "eth0" }]
      assert.deepStrictEqual(yield* cni("GC", { ...network, "cni.dev/valid-attachments": valid }), done)
      assert.deepStrictEqual(yield* ports, [
        "cni:c2/eth0 0.0.0.0 8002 -> 10.88.0.2 80 net",
        "cni:c3/eth0 0.0.0.0 8003 -> 10.88.0.2 80 other"
      ])
      assert.deepStrictEqual(yield* cni("GC", network), done)
      assert.deepStrictEqual(yield* ports, ["cni:c3/eth0 0.0.0.0 8003 -> 10.88.0.2 80 other"])
    }))
})

describe("STATUS", () => {
  test("succeeds where the plugin answers", ({ cni, config }) =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* cni("STATUS", config({ cniVersion: "1.1.0" })), done)
      const { stdout } = yield* cni("STATUS", { ...config({ cniVersion: "1.1.0" }), masqAll: true })
      assert.strictEqual(JSON.parse(stdout).code, 2)
    }))
})
