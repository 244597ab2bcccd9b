import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect } from "effect"
import { startWatch } from "../../adapters/engine/Watch.ts"
import { MemoryInterfaces } from "../../src/ports/InterfaceAddresses.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import { Driver } from "../../src/protocol/Driver.ts"
import { MemoryEngine } from "../engine/MemoryEngine.ts"
import { testNeeding } from "../lab/describeLab.ts"
import { onTerminal } from "../support/command.ts"
import { reference } from "../support/reference.ts"
import { socketFor } from "../support/socket.ts"
import {
  areWrongUsage,
  asking,
  done,
  failed,
  mapAs,
  mapped,
  served,
  watchServices,
  withMemory
} from "./asking.ts"

const publishForm = "[HOSTIP:][PORT[-END]]:CONTAINERPORT[-END][/PROTO]"

describe("map", () => {
  it.live("refuses what it can't map before it asks the plugin, and says what to do instead", () =>
    areWrongUsage([
      [
        "map -p 80 --to 300.1.1.1",
        'map: --to "300.1.1.1": not an IPv4 or IPv6 address; see: portmapper map --help'
      ],
      ["map", `map: name what to map by -p ${publishForm}; see: portmapper map --help`],
      ["map -p 80:80", "map: name where to by --to ADDRESS or --to CONTAINER; see: portmapper map --help"],
      [
        "map -p 80: --to 10.0.0.1",
        `map: -p "80:": the container port is missing; expected ${publishForm}; see: portmapper map --help`
      ],
      [
        "map -p99999:80 --to 10.0.0.1",
        'map: -p "99999:80": host port "99999": ports are 1 to 65535; see: portmapper map --help'
      ],
      [
        "map -p eth0:80:80 -p 81:81 --to 10.0.0.1",
        "map: -p 81:81: beside an interface each -p names one; map this in another call; see: portmapper map --help"
      ],
      [
        "map -p 80 --to 10.0.0.1 --label portmapper.interface=eth0",
        "map: -p 80: an interface needs an exact host port for each container port: eth0:PORT:80; see: portmapper map --help"
      ],
      [
        "map -p 80 --to /web",
        'map: --to "/web": expected an IPv4 or IPv6 address, or the name or id of a container; see: portmapper map --help'
      ],
      [
        "map -p 80 --to web --to 10.0.0.1",
        "map: --to web: with a container there is no other --to; see: portmapper map --help"
      ],
      [
        "map -p 80 --to 10.0.0.1 --to 10.0.0.2",
        "map: --to 10.0.0.1 --to 10.0.0.2: one IPv4 and one IPv6 address at most; see: portmapper map --help"
      ],
      [
        "map -p 127.0.0.1::80 --to fd00::2",
        "map: -p 127.0.0.1::80: 127.0.0.1 is IPv4, which leads to an IPv4 address only; see: portmapper map --help"
      ],
      [
        "map -p 80 --to 10.0.0.1 --label =x",
        'map: --label "=x": expected KEY=VALUE, with a key; see: portmapper map --help'
      ],
      ["map 8080:80", 'map: "8080:80" is not expected here; see: portmapper map --help']
    ])
  )

  it.live(
    "maps to a container by name where an Engine is watched, and names the missing option where none is",
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
        }).pipe(Effect.provide(watchServices))
      )
  )

  it.live("maps the requested ports, which ls lists and unmap unmaps", () =>
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

  it.live("maps at interfaces, and says which of them has no address yet", () =>
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
      }).pipe(Effect.provide(watchServices))
    )
  )

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
