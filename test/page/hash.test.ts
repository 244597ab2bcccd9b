import { assert, describe, it } from "@effect/vitest"
import { formatHash, parseHash, plainView, type View } from "../../adapters/page/app/hash.ts"

describe("the hash of the page", () => {
  it("names what differs from the plain view, and reads it again", () => {
    const view: View = {
      filter: "web & #1 =",
      sort: "traffic",
      isDescending: true,
      group: "owner",
      chosen: "tcp [::]:8080 [fd00::2]:80",
      pane: "events"
    }
    assert.strictEqual(
      formatHash(view),
      "#filter=web+%26+%231+%3D&sort=-traffic&group=owner&port=tcp+%5B%3A%3A%5D%3A8080+%5Bfd00%3A%3A2%5D%3A80&pane=events"
    )
    assert.deepStrictEqual(parseHash(formatHash(view)), view)
    assert.strictEqual(formatHash(plainView), "#")
    assert.deepStrictEqual(parseHash(""), plainView)
  })

  it("ignores what it does not know", () => {
    assert.deepStrictEqual(parseHash("#sort=size&group=colour&pane=&more=1&%"), plainView)
  })
})
