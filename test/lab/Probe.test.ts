import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { until } from "../support/until.ts"
import { describeLab } from "./describeLab.ts"
import * as Lab from "./Lab.ts"
import * as Nft from "./Nft.ts"
import * as Probe from "./Probe.ts"

const table = `
table inet portmapper {
  map any4 { type inet_proto . inet_service : ipv4_addr . inet_service; counter;
    elements = { tcp . 8080 : 172.31.0.2 . 80, udp . 53 : 172.31.0.3 . 5353, sctp . 9 : 172.31.0.3 . 9 } }
  map addr6 { type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service;
    elements = { fd99::1 . tcp . 8080 : fd66::2 . 80 } }
  set allowed4 { type inet_proto . inet_service . ipv4_addr; flags interval;
    elements = { tcp . 8080 . 10.0.0.0/8, tcp . 8081 . 10.0.0.1-10.0.0.6 } }
  set loopback4 { type ipv4_addr . inet_proto . inet_service; }
  chain prerouting {
    type nat hook prerouting priority -105;
    dnat ip to meta l4proto . th dport map @any4
  }
}
`

describeLab("a probe", [], () => {
  it.live("reads maps and sets as sorted lines, and the counters of their elements", () =>
    Effect.gen(function* () {
      const { c1, client, host } = yield* Lab.make()
      assert.isUndefined(yield* Nft.ruleset(host))
      assert.deepStrictEqual(yield* Nft.contents(host), {})
      yield* host.check("nft", ["-f", "-"], { input: table })
      assert.deepStrictEqual(yield* Nft.tables(host), ["inet portmapper"])
      assert.deepStrictEqual(yield* Nft.contents(host), {
        any4: ["sctp . 9 : 172.31.0.3 . 9", "tcp . 8080 : 172.31.0.2 . 80", "udp . 53 : 172.31.0.3 . 5353"],
        addr6: ["fd99::1 . tcp . 8080 : fd66::2 . 80"],
        allowed4: ["tcp . 8080 . 10.0.0.0/8", "tcp . 8081 . 10.0.0.1-10.0.0.6"]
      })
      assert.deepStrictEqual(yield* Nft.elements(host, "loopback4"), [])
      assert.match(
        (yield* Effect.flip(Nft.elements(host, "any5"))).message,
        /no such map or set, only: any4, addr6, allowed4, loopback4$/
      )
      yield* c1.agent.echo({ protocol: "tcp", port: 80 })
      yield* client.agent.tcp({ host: "10.99.0.1", port: 8080 })
      const counters = yield* Nft.counters(host, "any4")
      assert.deepStrictEqual(counters["tcp . 8080 : 172.31.0.2 . 80"], { packets: 1, bytes: 60 })
    })
  )

  it.live(
    "reads tracked connections of both families: the requested destination, and the answering backend",
    () =>
      Effect.gen(function* () {
        const { c1, client, host } = yield* Lab.make()
        yield* host.check("nft", ["-f", "-"], {
          input: `${table}\nadd rule inet portmapper prerouting dnat ip6 to ip6 daddr . meta l4proto . th dport map @addr6`
        })
        const from = { sourcePort: 5000, port: 8080 }
        yield* c1.agent.echo({ protocol: "tcp", port: 80 })
        yield* c1.agent.echo({ protocol: "tcp", host: "::", port: 80 })
        yield* client.agent.transfer({ ...from, host: "10.99.0.1" })
        yield* client.agent.transfer({ ...from, host: "fd99::1" })
        const found = yield* Probe.conntrack(host)
        const tcp = found.filter(({ protocol }) => protocol === "tcp")
        assert.deepStrictEqual(
          tcp.sort((a, b) => a.original.source.localeCompare(b.original.source)),
          [
            {
              protocol: "tcp",
              state: "ESTABLISHED",
              original: { source: "[fd99::2]:5000", destination: "[fd99::1]:8080" },
              reply: { source: "[fd66::2]:80", destination: "[fd99::2]:5000" },
              replied: true,
              assured: true,
              mark: 0
            },
            {
              protocol: "tcp",
              state: "ESTABLISHED",
              original: { source: "10.99.0.2:5000", destination: "10.99.0.1:8080" },
              reply: { source: "172.31.0.2:80", destination: "10.99.0.2:5000" },
              replied: true,
              assured: true,
              mark: 0
            }
          ]
        )
      })
  )

  it.live("lists the sockets that hold a port, of all processes or of one", () =>
    Effect.gen(function* () {
      const { host } = yield* Lab.make()
      assert.deepStrictEqual(yield* Probe.listening(host), [])
      yield* host.agent.hold({ protocol: "tcp", port: 80 })
      yield* host.agent.hold({ protocol: "tcp", host: "::", port: 80 })
      yield* host.agent.hold({ protocol: "tcp", host: "::", port: 81, dual: true })
      yield* host.agent.hold({ protocol: "udp", host: "fd99::1", port: 80 })
      const last = yield* host.agent.hold({ protocol: "udp", host: "127.0.0.1", port: 80 })
      const all = ["tcp *:81", "tcp 0.0.0.0:80", "tcp [::]:80", "udp 127.0.0.1:80", "udp [fd99::1]:80"]
      const pid = yield* host.agent.start
      assert.deepStrictEqual(yield* Probe.listening(host), all)
      assert.deepStrictEqual(yield* Probe.listening(host, { pid }), all)
      assert.deepStrictEqual(yield* Probe.listening(host, { pid: 1 }), [])
      yield* last.stop
      assert.notInclude(yield* Probe.listening(host), "udp 127.0.0.1:80")
    })
  )

  it.live("lists a process's descriptors and the kinds of its sockets", () =>
    Effect.gen(function* () {
      const { host } = yield* Lab.make()
      const pid = yield* host.agent.start
      const before = yield* Probe.descriptorKinds(pid)
      const tcp = yield* host.agent.hold({ protocol: "tcp", port: 80 })
      const udp = yield* host.agent.hold({ protocol: "udp", host: "::", port: 80 })
      const during = (yield* Probe.descriptors(pid)).flatMap(({ socket }) => socket ?? [])
      assert.includeMembers(during, ["tcp", "udp6"])
      yield* tcp.stop
      yield* udp.stop
      assert.deepStrictEqual(yield* Probe.descriptorKinds(pid), before)
      const monitor = yield* host.spawn("nft", ["monitor"])
      yield* until(Probe.descriptorKinds(monitor.pid), (kinds) => kinds.includes("netlink:12 × 1"))
      assert.match((yield* Effect.flip(Probe.descriptors(0))).message, /^descriptors of 0: /)
    })
  )
})
