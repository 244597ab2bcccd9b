// biome-ignore-all lint/style/noNonNullAssertion: a pipe has two ends
import { assert, describe, it } from "@effect/vitest"
import { inThread } from "./inThread.ts"

describe("the events of a thread", () => {
  it("are those of descriptors that are open still, whoever has their number", async () => {
    const { outcome } = await inThread(({ Epoll, Memory, Syscalls, ThreadData }) => {
      const ends = Memory.memory(8)
      Syscalls.pipe2(ends.address, Syscalls.NONBLOCK_CLOEXEC)
      const [reader, writer] = new Int32Array(ends.buffer)
      for (const fd of [reader!, writer!]) Epoll.adopt(fd, 6, 3)
      const [epollOut, taken] = [4, 1]
      Epoll.watch(writer!, epollOut)
      const seen = [Epoll.wait(0), Epoll.eventDescriptor(0) === writer, ThreadData.budget[taken]]
      Epoll.discard(writer!)
      Syscalls.fcntl(reader!, 0, writer!)
      return [...seen, Epoll.eventDescriptor(0), ThreadData.budget[taken], ThreadData.kind[writer!]]
    })
    assert.deepStrictEqual(outcome, [1, true, 2, -1, 1, 0])
  })

  it("are none of a paused listener, until it may be resumed", async () => {
    const { outcome } = await inThread(({ Epoll, Memory, Syscalls, ThreadData }) => {
      const ends = Memory.memory(8)
      Syscalls.pipe2(ends.address, Syscalls.NONBLOCK_CLOEXEC)
      // A closed pipe is ready all the time, as a listener with clients is.
      const [ready, writer] = new Int32Array(ends.buffer)
      Syscalls.close(writer!)
      const [listener, epollIn] = [2, 1]
      ThreadData.kind[ready!] = listener
      Epoll.watch(ready!, epollIn)
      const seen = [Epoll.wait(0)]
      Epoll.pauseListener(ready!)
      seen.push(Epoll.wait(0))
      for (const mayResume of [false, true]) {
        Epoll.resumeListeners(() => mayResume)
        seen.push(Epoll.hasPaused() ? 1 : 0, Epoll.wait(0))
      }
      Epoll.pauseListener(ready!)
      Epoll.forgetReserved(ready!)
      return [...seen, Epoll.hasPaused()]
    })
    assert.deepStrictEqual(outcome, [1, 0, 1, 0, 0, 1, false])
  })
})
