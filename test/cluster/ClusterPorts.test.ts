import { assert, describe, it } from "@effect/vitest"
import { Context, Duration, Effect, type Scope } from "effect"
import { TestClock } from "effect/testing"
import { MemoryEtcd } from "../../src/cluster/MemoryEtcd.ts"
import { Backends } from "../../src/mapper/MapperContext.ts"
import { MemoryHost } from "../../src/ports/HostSockets.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import { bindingText, group } from "../support/groups.ts"
import { type Host, makeHost } from "./MemoryHosts.ts"

const web = "tcp 0.0.0.0 172.17.0.2:80"
const other = "tcp 0.0.0.0 172.17.0.3:80"

const test = (title: string, body: Effect.Effect<void, unknown, MemoryEtcd | Scope.Scope>) =>
  it.effect(title, () => Effect.provide(Effect.scoped(body), MemoryEtcd.layer))

const named = (name: string) => ({ "portmapper.container": name })

const two = Effect.gen(function* () {
  const hosts = [yield* makeHost("a"), yield* makeHost("b")] as const
  yield* TestClock.adjust("1 second")
  return hosts
})

/** What hosts have claimed: `a tcp 8080`, `a block 40000-40003`. */
const claimed = Effect.map(MemoryEtcd, (etcd) =>
  etcd
    .entries()
    .filter(([key]) => key.includes("/cells/"))
    .map(([key]) => {
      const [kind, port, host] = (key.split("/").at(-1) ?? "").split(".")
      return `${host} ${kind} ${port}`
    })
)

/** The writes to etcd that an effect takes. */
const writesOf = <A, E, R>(host: Host, effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const before = (yield* host.cluster().status).counts.writes
    yield* effect
    return (yield* host.cluster().status).counts.writes - before
  })

const refusedBy = (holder: string, port = "0.0.0.0:8080/tcp") =>
  `bind for ${port} failed: port is already allocated (${holder})`

describe("an exact port", () => {
  test(
    "of one host is refused on another, with host and container, until it is unmapped",
    Effect.gen(function* () {
      const [a, b] = yield* two
      const bindings = yield* a.map(group("8080", [web], named("web")))
      assert.deepStrictEqual(bindings.map(bindingText), ["0.0.0.0:8080/tcp -> 172.17.0.2:80, forward"])
      assert.strictEqual(yield* b.refused(group("8080", [other])), refusedBy("held by host a, container web"))
      yield* a.unmap(bindings)
      yield* b.map(group("8080", [other]))
      assert.strictEqual(
        yield* a.refused(group("8080", [web])),
        refusedBy("held by host b for 172.17.0.3:80, owner engine")
      )
    })
  )

  test(
    "is refused with the name of the container, once the Engine has told it",
    Effect.gen(function* () {
      const a = yield* makeHost("a", {
        backends: Backends.of({
          stateOf: () => Effect.succeed("running"),
          containers: {
            changed: Effect.sleep("1 second"),
            attribute: (mappings) =>
              Effect.succeed(mappings.map(() => ({ _tag: "BelongsTo" as const, container: "web" }))),
            textOf: (container) => `${container}/0123456789ab`
          }
        })
      })
      const b = yield* makeHost("b")
      yield* a.map(group("8080", [web]))
      yield* a.map(group("0", [other]))
      yield* TestClock.adjust("4 seconds")
      assert.strictEqual(yield* b.refused(group("8080", [other])), refusedBy("held by host a, container web"))
      assert.deepStrictEqual(
        (yield* b.listedOfAll).map(({ at, container }) => `${at?.host} ${container}`),
        ["a web/0123456789ab", "a web/0123456789ab"]
      )
    })
  )

  test(
    "costs one write, for both families together, and none when it is asked for again",
    Effect.gen(function* () {
      const [a] = yield* two
      const asked = group("8080", [web, "tcp :: [fd00::2]:80"])
      assert.strictEqual(yield* writesOf(a, a.map(asked)), 1)
      assert.strictEqual(yield* writesOf(a, a.map(asked)), 0)
      assert.deepStrictEqual(yield* claimed, ["a tcp 8080"])
    })
  )

  test(
    "in UDP is another one than in TCP, and addresses play no part",
    Effect.gen(function* () {
      const [a, b] = yield* two
      yield* a.map(group("53", ["tcp 10.0.0.1 172.17.0.2:53"]))
      yield* b.map(group("53", ["udp 10.0.0.1 172.17.0.2:53"]))
      assert.strictEqual(
        yield* b.refused(group("53", ["tcp 10.0.0.2 172.17.0.2:53"])),
        refusedBy("held by host a for 172.17.0.2:53, owner engine", "10.0.0.2:53/tcp")
      )
      yield* a.map(group("53", ["tcp 10.0.0.2 172.17.0.3:53"]))
    })
  )

  test(
    "is the host's own on loopback, in mode routed, and by portmapper.scope=host",
    Effect.gen(function* () {
      const [a, b] = yield* two
      const asked = [
        group("8080", ["tcp 127.0.0.1 172.17.0.2:80"]),
        group("8081", [web], { "portmapper.mode": "routed" }),
        group("8082", [web], { "portmapper.scope": "host" })
      ]
      for (const each of asked) for (const host of [a, b]) yield* host.map(each)
      assert.deepStrictEqual(yield* claimed, [])
    })
  )

  test(
    "is given back where the host refuses it",
    Effect.gen(function* () {
      const [a, b] = yield* two
      Context.get(a.kernel, MemoryHost).take("tcp", addressUnsafe("0.0.0.0"), 8080)
      assert.strictEqual(
        yield* a.refused(group("8080", [web])),
        "bind for 0.0.0.0:8080/tcp failed: address already in use"
      )
      assert.deepStrictEqual(yield* claimed, [])
      yield* b.map(group("8080", [web]))
    })
  )

  test(
    "becomes unique when its mapping gets the label, and its own host's when it loses it",
    Effect.gen(function* () {
      const [a, b] = yield* two
      const asked = (scope: string) => group("8080", [web], { "portmapper.scope": scope })
      yield* a.map(asked("host"))
      assert.deepStrictEqual(yield* claimed, [])
      yield* a.map(asked("cluster"))
      assert.deepStrictEqual(yield* claimed, ["a tcp 8080"])
      assert.strictEqual(
        yield* b.refused(asked("cluster")),
        refusedBy("held by host a for 172.17.0.2:80, owner engine")
      )
      yield* a.map(asked("host"))
      assert.deepStrictEqual(yield* claimed, [])
    })
  )
})

describe("several calls at once", () => {
  test(
    "for a port on several hosts give it to one of them",
    Effect.gen(function* () {
      const hosts = [...(yield* two), yield* makeHost("c")]
      const asked = hosts.map((host) => Effect.exit(host.map(group("8080", [web]))))
      const exits = yield* Effect.all(asked, { concurrency: "unbounded" })
      assert.strictEqual(exits.filter(({ _tag }) => _tag === "Success").length, 1)
      assert.strictEqual((yield* claimed).length, 1)
    })
  )

  test(
    "for a port of one host keep its claim as long as one of them has it",
    Effect.gen(function* () {
      const [a, b] = yield* two
      const asked = [web, other].map((backend) => Effect.exit(a.map(group("8080", [backend]))))
      const exits = yield* Effect.all(asked, { concurrency: "unbounded" })
      assert.deepStrictEqual(
        exits.map(({ _tag }) => _tag),
        ["Success", "Failure"]
      )
      assert.deepStrictEqual(yield* claimed, ["a tcp 8080"])
      yield* b.refused(group("8080", [web]))
    })
  )

  test(
    "for ports of several cells get all of them or none",
    Effect.gen(function* () {
      const [a, b] = yield* two
      const ports = (from: number) =>
        Array.from({ length: 80 }, (_, index) =>
          group(`${from + index}`, [`tcp 0.0.0.0 172.17.0.2:${from + index}`])
        )
      yield* b.map(group("8130", [web]))
      const failed = yield* Effect.flip(a.mapAll(ports(8060)))
      assert.deepInclude(failed, { group: 70 })
      assert.deepStrictEqual(yield* claimed, ["b tcp 8130"])
      assert.strictEqual(yield* writesOf(a, a.mapAll(ports(8140))), 2)
      assert.strictEqual((yield* claimed).length, 81)
    })
  )
})

describe("ports of a range", () => {
  test(
    "are given out in order, each to one host, past those that are in use on the host",
    Effect.gen(function* () {
      const [a, b] = yield* two
      Context.get(b.kernel, MemoryHost).take("tcp", addressUnsafe("0.0.0.0"), 8001)
      const one = (host: Host, backend: string) =>
        Effect.map(host.map(group("8000-8003", [`tcp 0.0.0.0 ${backend}`])), ([binding]) => binding?.port)
      assert.strictEqual(yield* one(a, "172.17.0.2:80"), 8000)
      assert.strictEqual(yield* one(b, "172.17.0.2:80"), 8002)
      assert.strictEqual(yield* one(a, "172.17.0.3:80"), 8001)
      assert.strictEqual(yield* one(b, "172.17.0.3:80"), 8003)
      assert.strictEqual(
        yield* a.refused(group("8000-8003", [other])),
        "bind for 0.0.0.0:8000-8003/tcp failed: all ports are allocated in 8000-8003"
      )
      assert.deepStrictEqual(yield* claimed, ["a tcp 8000", "a tcp 8001", "b tcp 8002", "b tcp 8003"])
    })
  )
})

describe("ephemeral ports", () => {
  test(
    "of all hosts never meet, and most of them cost no write",
    Effect.gen(function* () {
      const hosts = [yield* makeHost("a"), yield* makeHost("b"), yield* makeHost("c")]
      const given = new Map<number, string>()
      let writes = 0
      for (let index = 0; index < 1000; index++)
        for (const host of hosts) {
          const backend = `172.17.${index >> 8}.${index & 255}:80`
          writes += yield* writesOf(
            host,
            Effect.map(
              host.map(group("0", [`tcp 0.0.0.0 ${backend}`, `udp 0.0.0.0 ${backend}`])),
              ([binding]) => {
                const port = binding?.port ?? 0
                assert.isFalse(given.has(port), `${port} is of ${given.get(port)} and ${host.name}`)
                given.set(port, host.name)
              }
            )
          )
        }
      // A block of 64 ports is one write; how soon blocks grow to that depends on the machine.
      assert.isBelow(writes, 300)
      const blocks = (yield* claimed).map((each) => each.split(" ")[1])
      assert.deepStrictEqual([...new Set(blocks)], ["block"])
    })
  )

  test(
    "go back to the cluster once a host needs far fewer",
    Effect.gen(function* () {
      const [a] = yield* two
      const mapped = []
      for (let index = 1; index < 200; index++)
        mapped.push(yield* a.map(group("0", [`tcp 0.0.0.0 172.17.0.${index}:80`])))
      const before = (yield* claimed).length
      for (const bindings of mapped) yield* a.unmap(bindings)
      assert.isBelow((yield* claimed).length, before)
      assert.isBelow((yield* a.cluster().status).freeOfBlocks, 128)
    })
  )

  test(
    "are all allocated once no host gives back any",
    Effect.gen(function* () {
      const ephemeral = { first: 40000, last: 40007 }
      const [a, b] = [yield* makeHost("a", { ephemeral }), yield* makeHost("b", { ephemeral })]
      const one = (host: Host, index: number) => host.map(group("0", [`tcp 0.0.0.0 172.17.0.${index}:80`]))
      for (const index of [1, 2, 3, 4]) yield* one(a, index)
      for (const index of [1, 2, 3, 4]) yield* one(b, index)
      assert.strictEqual(
        yield* b.refused(group("0", [web])),
        "bind for 0.0.0.0:40000-40007/tcp failed: all ports are allocated in 40000-40007"
      )
    })
  )
})

describe("a service", () => {
  test(
    "has members on several hosts, and keeps others away until the last one has left",
    Effect.gen(function* () {
      const [a, b] = yield* two
      const shared = (backend: string) =>
        group("8080", [`tcp 0.0.0.0 ${backend}`], { "portmapper.share": "web" })
      const ofA = yield* a.map(shared("172.17.0.2:80"))
      yield* a.map(shared("172.17.0.3:80"))
      const ofB = yield* b.map(shared("172.17.0.2:80"))
      assert.deepStrictEqual(yield* claimed, ["a tcp 8080", "b tcp 8080"])
      const c = yield* makeHost("c")
      assert.strictEqual(yield* c.refused(group("8080", [web])), refusedBy("held by host a, service web"))
      yield* a.unmap(ofA)
      yield* b.unmap(ofB)
      assert.deepStrictEqual(yield* claimed, ["a tcp 8080"])
    })
  )
})

describe("a host", () => {
  test(
    "that is killed leaves its ports to others after the TTL",
    Effect.gen(function* () {
      const [a, b] = yield* two
      yield* a.map(group("8080", [web]))
      yield* a.kill
      yield* TestClock.adjust("28 seconds")
      yield* b.refused(group("8080", [other]))
      yield* TestClock.adjust("2 seconds")
      yield* b.map(group("8080", [other]))
      yield* a.start
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual(yield* a.listed, [
        `0.0.0.0:8080 conflicted, ${refusedBy("held by host b for 172.17.0.3:80, owner engine")}`
      ])
      assert.deepStrictEqual(yield* a.rules, [])
    })
  )

  test(
    "that is killed and started again within the TTL loses nothing, and claims nothing again",
    Effect.gen(function* () {
      const [a, b] = yield* two
      yield* a.map(group("8080", [web]))
      yield* a.map(group("0", [other]))
      const before = yield* claimed
      yield* a.kill
      yield* TestClock.adjust("5 seconds")
      yield* a.start
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(yield* claimed, before)
      assert.deepStrictEqual(
        (yield* a.listed).map((line) => line.split(" ")[1]),
        ["live", "live"]
      )
      yield* b.refused(group("8080", [other]))
    })
  )

  test(
    "that is stopped keeps its ports for as long as it may be absent, and finds them again",
    Effect.gen(function* () {
      const [a, b] = yield* two
      yield* a.map(group("8080", [web]))
      yield* a.map(group("0", [other]))
      const before = yield* claimed
      yield* a.stop("leave")
      yield* TestClock.adjust("9 minutes")
      assert.deepStrictEqual(yield* claimed, before)
      yield* b.refused(group("8080", [other]))
      yield* a.start
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual(yield* claimed, before)
      assert.deepStrictEqual(
        (yield* a.listed).map((line) => line.split(" ")[1]),
        ["live", "live"]
      )
    })
  )

  test(
    "that gives everything back at its end leaves its ports to others at once",
    Effect.gen(function* () {
      const [a, b] = yield* two
      yield* a.map(group("8080", [web]))
      yield* a.stop("give back")
      yield* b.map(group("8080", [other]))
    })
  )

  test(
    "gives back what a kill kept from the record",
    Effect.gen(function* () {
      const [a, b] = yield* two
      yield* a.map(group("8080", [web]))
      yield* a.kill
      const host = yield* makeHost("a")
      yield* TestClock.adjust("1 second")
      yield* b.map(group("8080", [other]))
      yield* host.map(group("8081", [web]))
    })
  )

  test(
    "gives back a claim of its own that it knows nothing of, since its answer came too late for a process that ended",
    Effect.gen(function* () {
      const etcd = yield* MemoryEtcd
      const [a, b] = yield* two
      yield* a.map(group("8081", [web]))
      const [, value = ""] = etcd.entries().find(([key]) => key.endsWith("/tcp.8081.a")) ?? []
      const key = "/portmapper/default/cells/0126/tcp.8080.a"
      yield* etcd.connection("a").transact({
        compare: [],
        success: [{ _tag: "Put", key, value: value.replaceAll("8081", "8080"), lease: "1" }]
      })
      yield* b.refused(group("8080", [other]))
      yield* TestClock.adjust("30 seconds")
      assert.deepStrictEqual(yield* claimed, ["a tcp 8081"])
      yield* b.map(group("8080", [other]))
    })
  )

  test(
    "whose name another machine has grants nothing in the cluster",
    Effect.gen(function* () {
      yield* makeHost("a")
      const twin = yield* makeHost("a", { identity: "another machine" })
      yield* TestClock.adjust("1 second")
      assert.strictEqual(
        yield* twin
          .refused(group("8080", [web]))
          .pipe(Effect.raceFirst(Effect.andThen(TestClock.adjust("4 seconds"), Effect.never))),
        "bind for 0.0.0.0:8080/tcp failed: the port can't be claimed in the cluster: another machine is host a of this cluster: give each its own --cluster-host"
      )
    })
  )
})

describe("a host that is cut off", () => {
  test(
    "serves on, refuses exact ports within three seconds, and grants ephemeral ones while its lease lives",
    Effect.gen(function* () {
      const etcd = yield* MemoryEtcd
      const [a, b] = yield* two
      yield* a.map(group("8080", [web]))
      yield* a.map(group("0", [other]))
      etcd.cut("a")
      const refused = (asked: Parameters<Host["refused"]>[0]) =>
        a.refused(asked).pipe(Effect.raceFirst(Effect.andThen(TestClock.adjust("3001 millis"), Effect.never)))
      assert.strictEqual(
        yield* refused(group("8081", [web])),
        "bind for 0.0.0.0:8081/tcp failed: the port can't be claimed in the cluster: etcd at memory for a: no answer"
      )
      yield* a.map(group("0", ["tcp 0.0.0.0 172.17.0.4:80"]))
      yield* TestClock.adjust("30 seconds")
      assert.deepStrictEqual((yield* a.listed).length, 3)
      assert.match(
        yield* refused(group("0", ["tcp 0.0.0.0 172.17.0.5:80"])),
        /can't be claimed in the cluster: etcd at memory for a: no answer$/
      )
      // What is mapped is answered as before.
      yield* a.map(group("8080", [web]))
      yield* b.map(group("8080", [other]))
      etcd.mend("a")
      yield* TestClock.adjust("10 seconds")
      const listed = yield* a.listed
      assert.strictEqual(
        listed.find((line) => line.includes(":8080")),
        `0.0.0.0:8080 conflicted, ${refusedBy("held by host b for 172.17.0.3:80, owner engine")}`
      )
      assert.strictEqual(listed.filter((line) => line.endsWith(" live")).length, 2)
    })
  )

  test(
    "unmaps within a second, and gives the port back once it can",
    Effect.gen(function* () {
      const etcd = yield* MemoryEtcd
      const [a, b] = yield* two
      const bindings = yield* a.map(group("8080", [web]))
      etcd.cut("a")
      yield* a
        .unmap(bindings)
        .pipe(Effect.raceFirst(Effect.andThen(TestClock.adjust("1001 millis"), Effect.never)))
      assert.deepStrictEqual(yield* a.rules, [])
      assert.strictEqual(
        yield* b.refused(group("8080", [other])),
        refusedBy("held by host a for 172.17.0.2:80, owner engine")
      )
      etcd.mend("a")
      yield* TestClock.adjust("10 seconds")
      yield* b.map(group("8080", [other]))
    })
  )

  test(
    "is served again where another host had its port for a while",
    Effect.gen(function* () {
      const etcd = yield* MemoryEtcd
      const [a, b] = yield* two
      yield* a.map(group("8080", [web]))
      etcd.cut("a")
      yield* TestClock.adjust("31 seconds")
      const bindings = yield* b.map(group("8080", [other]))
      etcd.mend("a")
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(yield* a.rules, [])
      yield* b.unmap(bindings)
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual(yield* a.listed, ["0.0.0.0:8080 live"])
      assert.deepStrictEqual(yield* a.rules, ["Redirect 0.0.0.0:8080/tcp -> 172.17.0.2:80"])
      yield* b.refused(group("8080", [other]))
    })
  )
})

describe("etcd", () => {
  test(
    "restored from an older backup learns again what is served",
    Effect.gen(function* () {
      const etcd = yield* MemoryEtcd
      const [a, b] = yield* two
      yield* a.map(group("8080", [web]))
      const backup = etcd.backup()
      yield* b.map(group("9090", [web]))
      yield* a.map(group("8081", [other]))
      yield* etcd.restore(backup)
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual((yield* claimed).filter((each) => each.includes("tcp")).sort(), [
        "a tcp 8080",
        "a tcp 8081",
        "b tcp 9090"
      ])
    })
  )

  test(
    "that loses the reply to a claim keeps nothing that was refused",
    Effect.gen(function* () {
      const etcd = yield* MemoryEtcd
      const [a, b] = yield* two
      etcd.setFaults((host, operation) =>
        host === "a" && operation === "transact" ? { lose: "reply" } : undefined
      )
      yield* a
        .refused(group("8080", [web]))
        .pipe(Effect.raceFirst(Effect.andThen(TestClock.adjust("3001 millis"), Effect.never)))
      etcd.setFaults(() => undefined)
      yield* TestClock.adjust(Duration.seconds(5))
      assert.deepStrictEqual(yield* claimed, [])
      yield* b.map(group("8080", [other]))
    })
  )
})
