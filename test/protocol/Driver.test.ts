import { assert, describe, it } from "@effect/vitest"
import { isOwner, isSession } from "../../src/protocol/Driver.ts"

describe("the name of an owner", () => {
  it("has 1 to 128 printable characters of ASCII, and no space", () => {
    for (const name of ["a", "~", "!", "cni:a/eth0", "x".repeat(128)]) assert.isTrue(isOwner(name), name)
    for (const name of ["", " ", "a b", "a\n", "\x1b[31m", "\x7f", "é", "x".repeat(129)])
      assert.isFalse(isOwner(name), JSON.stringify(name))
  })

  it("is a session's alone or before a colon", () => {
    for (const name of ["session", "session:a", "session:"]) assert.isTrue(isSession(name), name)
    for (const name of ["sessions", "session/a", "cli", "my-session", ""])
      assert.isFalse(isSession(name), name)
  })
})
