import { assert, describe, it } from "@effect/vitest"
import { AF_INET, libc, SOCK_DGRAM, SOCK_STREAM } from "../../adapters/linux/Libc.ts"
import type { Serving } from "../../adapters/relay/ThreadMessages.ts"
import { WatchedSockets } from "../../adapters/relay/WatchedSockets.ts"

const { socket, close } = libc()
const serving = (fd: number, protocol: "tcp" | "udp") => ({ fd, protocol }) as Serving

describe("the sockets that a thread of the relay watches", () => {
  it("may be added twice, and removed where they are not watched", () => {
    const watched = new WatchedSockets()
    const [tcp, udp] = [socket(AF_INET, SOCK_STREAM, 0), socket(AF_INET, SOCK_DGRAM, 0)]
    assert.isAbove(watched.open(), 0)
    for (const one of [serving(tcp, "tcp"), serving(udp, "udp")])
      for (let time = 0; time < 2; time++) assert.isUndefined(watched.add(one))
    for (let time = 0; time < 2; time++) watched.remove(tcp)
    assert.isUndefined(watched.add(serving(tcp, "tcp")))
    watched.close()
    for (const fd of [tcp, udp]) close(fd)
  })

  it("are refused with the reason where they can't be watched, and ignored before there is a thread", () => {
    const watched = new WatchedSockets()
    assert.isUndefined(watched.add(serving(100_000, "tcp")))
    watched.open()
    assert.strictEqual(
      watched.add(serving(100_000, "tcp")),
      "its socket can't be watched: bad file descriptor"
    )
    watched.close()
  })

  it("have another generation once they are forgotten", () => {
    const watched = new WatchedSockets()
    watched.forget(7)
    watched.forget(7)
    assert.deepStrictEqual([...watched.generations.subarray(6, 9)], [0, 2, 0])
  })
})
