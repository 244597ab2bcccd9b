import { assert, it } from "@effect/vitest"
import { shellWord } from "../../src/protocol/ShellWord.ts"

it("leaves plain words alone and quotes the others for a shell", () => {
  assert.deepStrictEqual(["cni:a/eth0", "a b", "it's", ""].map(shellWord), [
    "cni:a/eth0",
    "'a b'",
    "'it'\\''s'",
    "''"
  ])
})
