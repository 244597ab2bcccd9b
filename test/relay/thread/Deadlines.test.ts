import { assert, describe, it } from "@effect/vitest"
import { inThread } from "./inThread.ts"

describe("descriptors with a deadline", () => {
  it("are due in the order in which they came, without those closed since or waiting no more", async () => {
    const { outcome } = await inThread(({ Deadlines, ThreadData }) => {
      const done = new Set<number>()
      const deadlines = new Deadlines.Deadlines((fd) => !done.has(fd))
      const due = (now: number) => {
        const fds: Array<number> = []
        deadlines.run(now, (fd) => fds.push(fd))
        return [...fds, deadlines.isEmpty ? "empty" : "more"]
      }
      for (const [fd, at] of [
        [10, 100],
        [11, 110],
        [12, 120],
        [13, 130]
      ] as const)
        deadlines.add(fd, at)
      const seen = [due(99), due(100)]
      done.add(11)
      // Closed, and the number is another's by now: that one waits for its own time.
      ThreadData.generation[12] = 1
      deadlines.add(12, 140)
      return [...seen, due(129), due(135), due(139), due(140)]
    })
    assert.deepStrictEqual(outcome, [["more"], [10, "more"], ["more"], [13, "more"], ["more"], [12, "empty"]])
  })
})
