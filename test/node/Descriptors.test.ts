import * as Fs from "node:fs"
import { assert, describe, it } from "@effect/vitest"
import { controlReserve, descriptorLimit, descriptorsInUse } from "../../adapters/node/Descriptors.ts"
import { withFewDescriptors } from "../relay/descriptors.ts"

describe("the descriptors of this process", () => {
  it("are counted, and limited as it is now", async () => {
    const before = descriptorsInUse()
    const fd = Fs.openSync("/dev/null", "r")
    assert.strictEqual(descriptorsInUse(), before + 1)
    Fs.closeSync(fd)
    const limit = descriptorLimit()
    await withFewDescriptors(async (leave) => {
      leave(20)
      assert.isBelow(descriptorLimit(), limit)
      assert.isAtLeast(descriptorLimit(), before + 20)
    })
    assert.strictEqual(descriptorLimit(), limit)
  })

  it("are kept back for calls: a quarter, and no more than 4096", () => {
    assert.deepStrictEqual([7, 1024, 16_384, 1 << 20].map(controlReserve), [1, 256, 4096, 4096])
  })
})
