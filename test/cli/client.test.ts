import * as Path from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Layer, type Scope } from "effect"
import { serveUnix } from "../../adapters/docker/PluginSocket.ts"
import { startWatch } from "../../adapters/engine/Watch.ts"
import { WatchRecord } from "../../adapters/engine/WatchRecord.ts"
import { PortMapper } from "../../src/mapper/PortMapper.ts"
import { InterfaceAddresses, MemoryInterfaces } from "../../src/ports/InterfaceAddresses.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import { CurrentOwner, Driver, type ListedMapping } from "../../src/protocol/Driver.ts"
import * as Memory from "../engine/MemoryEngine.ts"
import { MemoryEngine } from "../engine/MemoryEngine.ts"
import { testNeeding } from "../lab/describeLab.ts"
import { inShell, onTerminal, portmapper, type Ran, type RunOptions } from "../support/command.ts"
import { temporaryFolder } from "../support/folders.ts"
import { group } from "../support/groups.ts"
import { listedMapping } from "../support/mappings.ts"
import { reference } from "../support/reference.ts"
import { socketFor } from "../support/socket.ts"

/** Serves a driver on its own socket; returns the socket and what runs a command against it. */
const served = Effect.gen(function* () {
  const socket = Path.join(yield* temporaryFolder, "p.sock")
  yield* serveUnix(socket)
  return { socket, ask: asking(socket) }
})

/** `map -p 8080:80` as typed in a shell; no word may contain a space. */
const asking =
  (socket: string) =>
  (line: string, options?: RunOptions): Effect.Effect<Ran> =>
    portmapper([...line.split(" "), "--socket", socket], options)

const withMemory = <A, E>(effect: Effect.Effect<A, E, Driver | Scope.Scope>) =>
  Effect.provide(Effect.scoped(effect), PortMapper.layerMemory())

const done = (...lines: ReadonlyArray<string>): Ran => ({
  status: 0,
  stdout: lines.map((line) => `${line}\n`).join(""),
  stderr: ""
})
const failed = (why: string): Ran => ({ status: 1, stdout: "", stderr: `portmapper: ${why}\n` })

const mapped = Driver.use((driver) =>
  Effect.map(driver.listPorts ?? Effect.succeed([]), (listed) =>
    listed.map(
      ({ frontendIp, frontendPort, backendIp, backendPort, owner }) =>
        `${frontendIp} ${frontendPort} ${backendIp} ${backendPort} ${owner}`
    )
  )
)

const mapAs = (
  owner: string,
  port: string,
  entries: ReadonlyArray<string>,
  labels?: Record<string, string>
) =>
  Driver.use((driver) => Effect.scoped(driver.mapPorts(group(port, entries, labels)))).pipe(
    Effect.provideService(CurrentOwner, owner)
  )

describe("map, ls and unmap", () => {
  it.live(
    "map to a container by name where an Engine is watched, and name the missing option where none is",
    () =>
      withMemory(
        Effect.gen(function* () {
          const { ask, socket } = yield* served
          assert.deepStrictEqual(
            yield* ask("map -p 8080:80 --to web"),
            failed(
              `mapping to container web failed: the plugin at ${socket} watches no Engine, and knows no containers by name: start it with: portmapper serve --watch; or give --to the container's address`
            )
          )
          const engine = yield* MemoryEngine
          yield* engine.run({ name: "web" })
          yield* engine.run({ name: "typo", labels: { "portmapper.publish": "80:http" } })
          const watched = asking(yield* socketFor(yield* startWatch({ trustImageLabels: false })))
          assert.deepStrictEqual(
            yield* watched("map -p 8080:80 --to web"),
            done("0.0.0.0:8080/tcp -> 172.17.0.2:80", "[::]:8080/tcp -> 172.17.0.2:80")
          )
          assert.deepStrictEqual(
            yield* watched("map -p 8081:80 --to db"),
            failed("mapping to container db failed: no such container: db")
          )
          const { stdout } = yield* watched("ls")
          assert.match(stdout, /\n\ntypo: 80:http: [^\n]+\n$/)
          assert.deepStrictEqual(
            yield* watched("unmap -p 8080"),
            done("unmapped 0.0.0.0:8080/tcp", "unmapped [::]:8080/tcp")
          )
        }).pipe(
          Effect.provide(
            Layer.mergeAll(Memory.layer(), InterfaceAddresses.layerMemory, WatchRecord.layerMemory)
          )
        )
      )
  )

  it.live("map the requested ports, list them, and unmap them", () =>
    withMemory(
      Effect.gen(function* () {
        const { ask } = yield* served
        assert.deepStrictEqual(
          yield* ask(
            "map -p 8080:80 -p127.0.0.1::53/udp --publish [::1]:7000-7001:7000-7001 --to 172.17.0.2"
          ),
          done(
            "0.0.0.0:8080/tcp -> 172.17.0.2:80",
            "[::]:8080/tcp -> 172.17.0.2:80",
            "127.0.0.1:49153/udp -> 172.17.0.2:53",
            "[::1]:7000-7001/tcp -> 172.17.0.2:7000-7001"
          )
        )
        const table = yield* ask("ls")
        assert.deepStrictEqual(
          { ...table, stdout: table.stdout.replaceAll(/\d+s/g, "0s") },
          done(
            "FRONTEND             BACKEND          MODE  OWNER  STATE  AGE  CONNS  IN  OUT",
            "[::1]:7000/tcp       172.17.0.2:7000  nat   cli    live    0s      0  0B   0B",
            "[::1]:7001/tcp       172.17.0.2:7001  nat   cli    live    0s      0  0B   0B",
            "0.0.0.0:8080/tcp     172.17.0.2:80    nat   cli    live    0s      0   -    -",
            "[::]:8080/tcp        172.17.0.2:80    nat   cli    live    0s      0  0B   0B",
            "127.0.0.1:49153/udp  172.17.0.2:53    nat   cli    live    0s      0  0B   0B"
          )
        )
        assert.deepStrictEqual(
          yield* ask("unmap -p 8080 -p 8081 -p 49153/udp -p [::1]:7000-7009"),
          done(
            "unmapped [::1]:7000-7001/tcp",
            "unmapped 0.0.0.0:8080/tcp",
            "unmapped [::]:8080/tcp",
            "not mapped: 8081/tcp",
            "not mapped: 49153/udp (but on 127.0.0.1)"
          )
        )
        assert.deepStrictEqual(yield* ask("unmap --all"), done("unmapped 127.0.0.1:49153/udp"))
        assert.deepStrictEqual(yield* ask("unmap --all"), done("nothing to unmap"))
        assert.deepStrictEqual(yield* mapped, [])
      })
    )
  )

  it.live("name a port of several backends once when they unmap it", () =>
    withMemory(
      Effect.gen(function* () {
        const { ask } = yield* served
        for (const number of [2, 3])
          yield* ask(`map -p 0.0.0.0:8080-8081:80-81 --to 172.17.0.${number} --label portmapper.share=web`)
        yield* ask("map -p 0.0.0.0:8082:80 --to 172.17.0.2")
        assert.deepStrictEqual(
          yield* ask("unmap --all"),
          done("unmapped 0.0.0.0:8080-8081/tcp (2 backends)", "unmapped 0.0.0.0:8082/tcp")
        )
        assert.deepStrictEqual(yield* mapped, [])
      })
    )
  )

  it.live("map at interfaces, and say which of them has no address yet", () =>
    withMemory(
      Effect.gen(function* () {
        const interfaces = yield* MemoryInterfaces
        yield* interfaces.set("eth0", [addressUnsafe("192.0.2.1")])
        const ask = asking(yield* socketFor(yield* startWatch({ trustImageLabels: false })))
        assert.deepStrictEqual(
          yield* ask("map -p eth0:8080:80 -p wg0:9090:80 --to 172.17.0.2"),
          done(
            "192.0.2.1:8080/tcp -> 172.17.0.2:80",
            "waiting for an address of the interface wg0: wg0:9090:80"
          )
        )
      }).pipe(Effect.provide(Layer.merge(InterfaceAddresses.layerMemory, WatchRecord.layerMemory)))
    )
  )

  it.live("drain a backend by its address or its container's name, and undrain it", () =>
    withMemory(
      Effect.gen(function* () {
        const engine = yield* MemoryEngine
        yield* engine.run({ name: "web" })
        const ask = asking(yield* socketFor(yield* startWatch({ trustImageLabels: false })))
        yield* ask("map -p 0.0.0.0:8080-8081:80-81 --to web")
        yield* ask("map -p 0.0.0.0:8082:80 --to 172.17.0.3")
        const states = Effect.map(ask("ls --json"), ({ stdout }) =>
          (JSON.parse(stdout) as { Mappings: ReadonlyArray<{ State: string }> }).Mappings.map(
            ({ State }) => State
          )
        )
        assert.deepStrictEqual(
          yield* ask("drain web"),
          done("drained 0.0.0.0:8080-8081/tcp -> 172.17.0.2:80-81")
        )
        assert.deepStrictEqual(yield* states, ["drained", "drained", "live"])
        assert.deepStrictEqual(
          yield* ask("undrain 172.17.0.2 -p 8081"),
          done("undrained 0.0.0.0:8081/tcp -> 172.17.0.2:81")
        )
        assert.deepStrictEqual(yield* states, ["drained", "live", "live"])
        assert.deepStrictEqual(
          yield* ask("drain db"),
          failed("draining db failed: nothing leads to db; there are 172.17.0.2 (web), 172.17.0.3")
        )
        assert.deepStrictEqual(
          yield* ask("drain web -p 9"),
          failed("draining web failed: 9 does not lead to web, which has 0.0.0.0:8080/tcp, 0.0.0.0:8081/tcp")
        )
        assert.deepStrictEqual(
          yield* ask("drain 172.17.0.3 --json"),
          done(
            '{"Mappings":[{"Proto":6,"FrontendIP":"0.0.0.0","FrontendPort":8082,"BackendIP":"172.17.0.3","BackendPort":80}]}'
          )
        )
      }).pipe(
        Effect.provide(
          Layer.mergeAll(Memory.layer(), InterfaceAddresses.layerMemory, WatchRecord.layerMemory)
        )
      )
    )
  )

  it.live("have doctor name a service of which every backend is drained", () =>
    withMemory(
      Effect.gen(function* () {
        const { ask } = yield* served
        const services = Effect.map(ask("doctor --json"), ({ stdout }) =>
          (JSON.parse(stdout).checks as ReadonlyArray<Record<string, string>>).flatMap(
            ({ name, found, remedy }) => (name === "services" ? [[found, remedy]] : [])
          )
        )
        for (const number of [2, 3])
          yield* ask(`map -p 0.0.0.0:8080:80 --to 172.17.0.${number} --label portmapper.share=web`)
        const drain = (backend: string) =>
          Driver.use(
            (driver) =>
              driver.drain?.({ backend, addresses: [addressUnsafe(backend)], ports: [], drained: true }) ??
              Effect.die("not offered")
          ).pipe(Effect.provideService(CurrentOwner, "cli"))
        yield* drain("172.17.0.2")
        assert.deepStrictEqual(yield* services, [["each has a backend that takes connections", undefined]])
        yield* drain("172.17.0.3")
        assert.deepStrictEqual(yield* services, [
          [
            "no backend of service web at 0.0.0.0:8080/tcp takes connections: 172.17.0.2:80: drained (and 1 more)",
            "portmapper undrain 172.17.0.2"
          ]
        ])
      })
    )
  )

  it.live("take back one backend of a port, and only that", () =>
    withMemory(
      Effect.gen(function* () {
        const { ask } = yield* served
        for (const number of [2, 3, 4])
          yield* ask(
            `map -p 8080-8081:80-81 --to 172.17.0.${number} --to fd00::${number} --label portmapper.share=web`
          )
        const slots = Effect.map(ask("ls --json"), ({ stdout }) =>
          (JSON.parse(stdout).Mappings as ReadonlyArray<Record<string, unknown>>).flatMap(
            ({ FrontendIP, FrontendPort, BackendIP, Service, Slots }) =>
              FrontendIP === "0.0.0.0" && FrontendPort === 8080 ? [[BackendIP, Service, Slots]] : []
          )
        )
        assert.deepStrictEqual(yield* slots, [
          ["172.17.0.2", "web", { Has: 22, Of: 64 }],
          ["172.17.0.3", "web", { Has: 21, Of: 64 }],
          ["172.17.0.4", "web", { Has: 21, Of: 64 }]
        ])
        assert.deepStrictEqual(
          yield* ask("unmap -p 8080-8081 --to 172.17.0.3"),
          done("unmapped 0.0.0.0:8080-8081/tcp -> 172.17.0.3:80-81")
        )
        assert.deepStrictEqual(yield* slots, [
          ["172.17.0.2", "web", { Has: 32, Of: 64 }],
          ["172.17.0.4", "web", { Has: 32, Of: 64 }]
        ])
        assert.deepStrictEqual(
          yield* ask("unmap -p 8080 --to 172.17.0.3 --json"),
          done('{"Unmapped":[],"NotMapped":["8080/tcp"]}')
        )
        assert.deepStrictEqual(
          yield* ask("unmap -p 8080 --to 172.17.0.3"),
          done("not mapped: 8080/tcp to 172.17.0.3")
        )
        assert.deepStrictEqual(
          yield* ask("unmap --all --to fd00::2"),
          done("unmapped [::]:8080-8081/tcp -> [fd00::2]:80-81")
        )
        assert.deepStrictEqual(yield* ask("unmap --all --to web"), done("nothing to unmap"))
      })
    )
  )

  it.live("print one JSON document with --json, also when they fail", () =>
    withMemory(
      Effect.gen(function* () {
        const { ask } = yield* served
        const json = (line: string) =>
          Effect.map(ask(`${line} --json`), ({ status, stdout }) => [status, JSON.parse(stdout)])
        const binding = {
          Proto: 6,
          BackendIP: "172.17.0.2",
          BackendPort: 80,
          FrontendIP: "0.0.0.0",
          FrontendPort: 8080
        }
        assert.deepStrictEqual(
          yield* json("map -p 0.0.0.0:8080:80 --to 172.17.0.2 --label portmapper.mode=nat --label a=b=c"),
          [
            0,
            {
              PortBindings: [{ ...binding, DiscardReq: false, AllowForwarding: true, NAT: null, Error: null }]
            }
          ]
        )
        const [status, listed] = yield* json("ls")
        assert.strictEqual(status, 0)
        assert.match(listed.Mappings[0].Since, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
        assert.deepStrictEqual(
          { Mappings: [{ ...listed.Mappings[0], Since: "" }] },
          {
            Mappings: [
              {
                Proto: 6,
                FrontendIP: "0.0.0.0",
                FrontendPort: 8080,
                BackendIP: "172.17.0.2",
                BackendPort: 80,
                Mode: "nat",
                Owner: "cli",
                State: "live",
                Since: "",
                Labels: { "portmapper.mode": "nat" },
                Connections: 0,
                BytesIn: null,
                BytesOut: null,
                Service: "",
                Refused: null,
                Slots: null,
                Open: null,
                Container: "",
                Reason: "",
                Host: "",
                HostAddress: ""
              }
            ]
          }
        )
        const [code, error] = yield* json("map -p 8080:81 --to 172.17.0.2")
        assert.strictEqual(code, 1)
        assert.match(
          error.Err,
          /^mapping 8080:81 failed: bind for 0\.0\.0\.0:8080\/tcp failed: port is already allocated/
        )
        assert.deepStrictEqual(yield* json("unmap -p 0.0.0.0:8080 -p 9"), [
          0,
          { Unmapped: [binding].map(({ ...named }) => named), NotMapped: ["9/tcp"] }
        ])
      })
    )
  )

  it.live("print the cause of a failure on one line", () =>
    Effect.gen(function* () {
      const socket = Path.join(yield* temporaryFolder, "none.sock")
      const noSocket = `${socket}: no such socket; start the plugin with: portmapper serve`
      const ask = asking(socket)
      assert.deepStrictEqual(yield* ask("ls"), failed(`listing failed: ${noSocket}`))
      assert.deepStrictEqual(
        yield* ask("map -p 80:80 --to 10.0.0.1"),
        failed(`mapping 80:80 failed: ${noSocket}`)
      )
      assert.deepStrictEqual(yield* ask("unmap --all"), failed(`unmapping failed: ${noSocket}`))
      assert.deepStrictEqual(yield* portmapper(["ls", "--json", "--url", `unix://${socket}`]), {
        ...failed(`listing failed: ${noSocket}`),
        stdout: `${JSON.stringify({ Err: `listing failed: ${noSocket}` })}\n`
      })
    }).pipe(Effect.scoped)
  )

  it.live("escape what would reach the terminal out of an error", () =>
    withMemory(
      Effect.gen(function* () {
        const { ask } = yield* served
        const labels = { "portmapper.container": "\u001b[2Jweb/0123456789ab" }
        yield* mapAs("engine", "8080", ["tcp 0.0.0.0 10.0.0.1:80"], labels)
        assert.deepStrictEqual(
          yield* ask("drain \u001b]0;x\u0007"),
          failed(
            String.raw`draining \x1b]0;x\x07 failed: nothing leads to \x1b]0;x\x07; there are 10.0.0.1 (\x1b[2Jweb)`
          )
        )
      })
    )
  )

  testNeeding("end when their reader does", ["bash"], () =>
    withMemory(
      Effect.gen(function* () {
        const { socket } = yield* served
        for (let port = 1; port < 2000; port++) yield* mapAs("engine", `${port}`, ["tcp 0.0.0.0 10.0.0.1:80"])
        const { stdout, stderr } = yield* inShell(`portmapper ls --socket '${socket}' | head -n 1`)
        assert.match(stdout, /^FRONTEND.*\n$/)
        assert.strictEqual(stderr, "")
      })
    )
  )
})

describe("map", () => {
  it.live("unmaps what it mapped before a failure, but not what was mapped before it", () =>
    withMemory(
      Effect.gen(function* () {
        const { ask } = yield* served
        yield* ask("map -p 127.0.0.1:7005:80 --to 10.0.0.1")
        yield* mapAs("engine", "7100", ["tcp 127.0.0.1 10.0.0.9:80"])
        const before = yield* mapped
        const { status, stdout, stderr } = yield* ask(
          "map -p 127.0.0.1:7000-7004:80-84 -p 127.0.0.1:7005:80 -p 127.0.0.1:7100:80 --to 10.0.0.1"
        )
        assert.deepStrictEqual([status, stdout], [1, ""])
        assert.match(
          stderr,
          /^portmapper: mapping 127\.0\.0\.1:7100:80 failed: bind for 127\.0\.0\.1:7100\/tcp failed: port is already allocated \(held by engine .*\); what was mapped before it \(5 ports\) was unmapped again\n$/
        )
        assert.deepStrictEqual(yield* mapped, before)
      })
    )
  )

  it.live("requests exact ports before ranges and ephemeral ports", () =>
    withMemory(
      Effect.gen(function* () {
        const { ask } = yield* served
        assert.deepStrictEqual(
          yield* ask("map -p 127.0.0.1:8000-8001:80 -p 127.0.0.1:8000:81 --to 10.0.0.1"),
          done("127.0.0.1:8001/tcp -> 10.0.0.1:80", "127.0.0.1:8000/tcp -> 10.0.0.1:81")
        )
      })
    )
  )

  it.live("prints what was discarded, and why", () =>
    Effect.gen(function* () {
      const { ask } = yield* served
      assert.deepStrictEqual(
        yield* ask("map -p 80:80 --to 10.0.0.1"),
        done("0.0.0.0:80/tcp -> 10.0.0.1:80", "[::]:80/tcp discarded: no \\x1b IPv6 here")
      )
    }).pipe(
      Effect.scoped,
      Effect.provideService(
        Driver,
        Driver.of({
          mapPorts: ({ entries }) =>
            Effect.succeed(
              entries.map((entry) => ({
                entry,
                port: 80,
                discarded: entry.host.family === 6 ? "no \u001b IPv6 here" : undefined,
                allowForwarding: false,
                nat: undefined
              }))
            ),
          unmapPorts: () => Effect.void
        })
      )
    )
  )

  it.live("rolls back when it is interrupted, and reports that by its exit status", () =>
    withMemory(
      Effect.gen(function* () {
        const { mapGroups: _, ...memory } = yield* Driver
        const [reached, signalled] = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
        const calls = { begun: 0, waiting: 0, waitingAtTheSignal: 0, unmapped: 0 }
        const slow = Driver.of({
          ...memory,
          // Eight are answered at once; the driver works on the ninth until the signal is sent.
          mapPorts: Effect.fnUntraced(function* (asked) {
            if (++calls.begun > 8) {
              calls.waiting++
              yield* Deferred.succeed(reached, undefined)
              yield* Deferred.await(signalled)
            }
            return yield* memory.mapPorts(asked)
          }),
          unmapPorts: (asked) => {
            calls.unmapped += asked.bindings.length
            return memory.unmapPorts(asked)
          }
        })
        const { ask } = yield* Effect.provideService(served, Driver, slow)
        const asked = yield* ask("map -p 7000-7599:80-679 --to 10.0.0.1", {
          signalled: Deferred.await(reached),
          afterwards: Effect.suspend(() => {
            calls.waitingAtTheSignal = calls.waiting
            return Deferred.succeed(signalled, undefined)
          })
        })
        assert.deepStrictEqual(asked, { status: 130, stdout: "", stderr: "" })
        assert.isAtLeast(calls.waitingAtTheSignal, 1)
        assert.isBelow(calls.begun, 600)
        // These calls ran at the same time: each port is requested on both families.
        assert.strictEqual(calls.unmapped, calls.begun * 2)
        assert.deepStrictEqual(yield* mapped, [])
      })
    )
  )

  testNeeding(
    "maps thousands of ports over a few connections, and shows a progress bar only on a terminal",
    ["terminal"],
    () =>
      withMemory(
        Effect.gen(function* () {
          const { ask, socket } = yield* served
          assert.deepStrictEqual(
            yield* ask("map -p 127.0.0.1:10000-11999:10000-11999 --to 10.0.0.1"),
            done("127.0.0.1:10000-11999/tcp -> 10.0.0.1:10000-11999")
          )
          assert.strictEqual((yield* mapped).length, 2000)
          assert.deepStrictEqual(yield* ask("unmap --all"), done("unmapped 127.0.0.1:10000-11999/tcp"))
          const { status, stdout } = yield* onTerminal(
            ["map", "-p", "127.0.0.1:10000-10999:1-1000", "--to", "10.0.0.1", "--socket", socket],
            80
          )
          assert.strictEqual(status, 0)
          const [first = "", last] = [stdout.split("\r")[1], stdout.split("\r").at(-1)]
          assert.match(first.replace("\u001b", "ESC"), /^mapping +\d+ of 1000 \[=*>? *\] +\d+%ESC\[K$/)
          assert.strictEqual(last, "\u001b[K127.0.0.1:10000-10999/tcp -> 10.0.0.1:1-1000\n")
          for (const drawn of stdout.split("\r")) assert.isBelow(drawn.length, 80 + "\u001b[K".length)
        })
      )
  )
})

describe("unmap", () => {
  it.live("leaves another owner's mappings alone unless --owner names it", () =>
    withMemory(
      Effect.gen(function* () {
        const { ask } = yield* served
        yield* mapAs("engine", "80", ["tcp 0.0.0.0 10.0.0.1:80"])
        yield* mapAs("watch", "81", ["tcp 0.0.0.0 10.0.0.1:80"])
        yield* mapAs("cli", "82", ["tcp 0.0.0.0 10.0.0.1:80"])
        assert.deepStrictEqual(
          yield* ask("unmap -p 82 -p 80"),
          failed(
            "unmapping 0.0.0.0:80/tcp failed: it belongs to engine, not to cli; to unmap it all the same add --owner engine"
          )
        )
        assert.strictEqual((yield* mapped).length, 3)
        assert.deepStrictEqual(yield* ask("unmap -p 80 --owner engine"), done("unmapped 0.0.0.0:80/tcp"))
        assert.deepStrictEqual(yield* ask("unmap --all"), done("unmapped 0.0.0.0:82/tcp"))
        assert.deepStrictEqual(yield* ask("unmap --all --owner any"), done("unmapped 0.0.0.0:81/tcp"))
      })
    )
  )

  it.live("unmaps stale mappings, and names the ports that it could not unmap", () =>
    Effect.gen(function* () {
      const { ask } = yield* served
      assert.deepStrictEqual(yield* ask("unmap --stale"), done("unmapped 0.0.0.0:81/tcp"))
      assert.deepStrictEqual(
        yield* ask("unmap --all --owner engine"),
        failed("unmapping 2 mappings failed: the kernel says no; 0 were unmapped, see: portmapper ls")
      )
    }).pipe(
      Effect.scoped,
      Effect.provideService(
        Driver,
        Driver.of({
          mapPorts: () => Effect.succeed([]),
          unmapPorts: ({ bindings }) =>
            bindings.length > 1 ? Effect.fail({ _tag: "No", message: "the kernel says no" }) : Effect.void,
          listPorts: Effect.succeed([listed(80, "live"), listed(81, "stale")])
        })
      )
    )
  )
})

const listed = (frontendPort: number, state: ListedMapping["state"]): ListedMapping =>
  listedMapping({ frontendPort, state, backendIp: "10.0.0.1" })

describe("ls", () => {
  testNeeding("fits the width of a terminal, and prints every column without one", ["terminal"], () =>
    Effect.gen(function* () {
      const { ask, socket } = yield* served
      const narrow = yield* onTerminal(["ls", "--socket", socket], 50)
      assert.strictEqual(
        narrow.stdout,
        "FRONTEND        BACKEND      MODE  OWNER   STATE\n0.0.0.0:80/tcp  10.0.0.1:80  nat   engine  live\n"
      )
      const whole = yield* ask("ls")
      assert.match(
        whole.stdout,
        /^FRONTEND {8}BACKEND {6}MODE {2}OWNER {3}STATE {2}AGE {2}CONNS\n.* {2}\d+y {6}-\n$/
      )
    }).pipe(
      Effect.scoped,
      Effect.provideService(
        Driver,
        Driver.of({
          mapPorts: () => Effect.succeed([]),
          unmapPorts: () => Effect.void,
          listPorts: Effect.succeed([listed(80, "live")])
        })
      )
    )
  )

  it.live("watches: prints the table whenever it changes, until it is interrupted", () =>
    withMemory(
      Effect.gen(function* () {
        const { ask } = yield* served
        const seen = yield* Deferred.make<void>()
        const watching = yield* Effect.forkChild(
          ask("ls --watch", {
            enough: (stdout) => {
              if (stdout !== "") Deferred.doneUnsafe(seen, Effect.void)
              return stdout.includes("8080/tcp")
            }
          })
        )
        yield* Deferred.await(seen)
        yield* mapAs("cli", "8080", ["tcp 0.0.0.0 10.0.0.1:80"])
        const { status, stdout, stderr } = yield* Fiber.join(watching)
        assert.deepStrictEqual([status, stderr], [0, ""])
        assert.match(
          stdout,
          /^FRONTEND {2}BACKEND {2}MODE {2}OWNER {2}STATE {2}AGE {2}CONNS\n\nFRONTEND .*\n0\.0\.0\.0:8080\/tcp .*\n$/
        )
      })
    )
  )

  testNeeding("draws on the alternate screen of a terminal, and restores the cursor", ["terminal"], () =>
    withMemory(
      Effect.gen(function* () {
        const { socket } = yield* served
        yield* mapAs("cli", "8080", ["tcp 0.0.0.0 10.0.0.1:80"])
        const { stdout } = yield* onTerminal(["ls", "--watch", "--socket", socket], 80, {
          enough: (drawn) => drawn.includes("8080/tcp")
        })
        assert.isTrue(stdout.startsWith("\u001b[?1049h\u001b[?25l\u001b[HFRONTEND"), stdout)
        assert.isTrue(stdout.endsWith("\u001b[?25h\u001b[?1049l"), stdout)
      })
    )
  )
})

describe("a plugin of another vendor", () => {
  testNeeding("maps and unmaps, and its lack of a list is reported", ["go"], () =>
    Effect.runPromise(
      Effect.scoped(
        Effect.gen(function* () {
          const socket = yield* reference
          const ask = asking(socket)
          const notOffered = `the plugin at ${socket} does not know PortMapper.ListPorts: only portmapper's own plugin can be asked for that`
          assert.deepStrictEqual(
            yield* ask("map -p 8000-8002:80-82 --to 10.0.0.1"),
            done("0.0.0.0:8000-8002/tcp -> 10.0.0.1:80-82", "[::]:8000-8002/tcp -> 10.0.0.1:80-82")
          )
          assert.deepStrictEqual(
            yield* ask("unmap -p 127.0.0.1:8000-8002"),
            done("unmapped 127.0.0.1:8000-8002/tcp")
          )
          assert.deepStrictEqual(yield* ask("ls"), failed(`listing failed: ${notOffered}`))
          assert.deepStrictEqual(yield* ask("unmap --all"), failed(`unmapping failed: ${notOffered}`))
          assert.deepStrictEqual(
            yield* ask("map -p 1:80 --to 10.0.0.1"),
            failed("mapping 1:80 failed: bind for port 1 failed: port is already allocated")
          )
        })
      )
    )
  )
})
