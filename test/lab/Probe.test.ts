import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { until } from "../support/until.ts"
import { describeLab } from "./describeLab.ts"
import * as Lab from "./Lab.ts"
import * as Probe from "./Probe.ts"

describeLab("a probe", [], () => {
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
