import { statSync } from "node:fs"
import { assert, it } from "@effect/vitest"
import { systemReason } from "../../adapters/docker/systemReason.ts"

it("why a call failed is said in the system's words, without the call and the path", () => {
  const thrown = (run: () => unknown) => {
    try {
      return run()
    } catch (error) {
      return error
    }
  }
  assert.strictEqual(systemReason(thrown(() => statSync("/no/such"))), "no such file or directory")
  assert.strictEqual(systemReason(Object.assign(new Error("of c-ares"), { errno: undefined })), "of c-ares")
  assert.strictEqual(systemReason("a text"), "a text")
})
