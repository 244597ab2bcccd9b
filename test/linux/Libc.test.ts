import { assert, describe, it } from "@effect/vitest"
import { EAGAIN, EBUSY, libc } from "../../adapters/linux/Libc.ts"

describe("a call of the C library", () => {
  it("returns the negated errno, also from another thread", async () => {
    const { close, ifNameToIndex, recvfromLater, socket } = libc()
    const bytes = new Uint8Array(8)
    assert.strictEqual(close(-1), -9)
    assert.strictEqual(ifNameToIndex(new TextEncoder().encode("nowhere\0")), -19)
    const fd = socket(1, 2, 0)
    assert.strictEqual(await recvfromLater(fd, bytes, 8, 0x40, bytes, new Uint8Array(4)), -EAGAIN)
    assert.strictEqual(close(fd), 0)
  })

  it("fails with the system's words for its errno", () => {
    const { code, message, syscall } = libc().errno("dump", -EBUSY)
    assert.deepStrictEqual([code, message, syscall], ["EBUSY", "dump: device or resource busy", "dump"])
  })
})
