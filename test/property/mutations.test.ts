/**
 * The faults that the harness must find. `scripts/mutations.ts` checks that it does; this checks that each still
 * applies.
 */
import * as Fs from "node:fs"
import * as Path from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { mutate, mutations } from "./mutations.ts"

const root = Path.resolve(import.meta.dirname, "../..")

describe("the mutations", () => {
  it("are as many as before, with unique names", () =>
    assert.isAtLeast(new Set(mutations.map(({ name }) => name)).size, 86))

  for (const mutation of mutations)
    it(`apply to one place in the sources: ${mutation.name}`, () => {
      const source = Fs.readFileSync(Path.join(root, mutation.file), "utf8")
      assert.notStrictEqual(mutate(source, mutation), source)
    })

  it("find their place however the source is laid out, and must be unique there", () => {
    const mutation = {
      name: "one",
      file: "a.ts",
      within: "add",
      find: "sum(a, b)",
      put: "sum(b, a)",
      search: "harness" as const
    }
    const source = "const other = sum(a, b)\nconst add = () => {\n  return sum(\n    a,\n    b,\n  )\n}\n"
    assert.strictEqual(
      mutate(source, mutation),
      "const other = sum(a, b)\nconst add = () => {\n  return sum(b, a)\n}\n"
    )
    assert.throws(() => mutate("const add = 1", mutation), "one: 0 places in add of a.ts for sum(a, b)")
    assert.throws(() => mutate("const add = [sum(a, b), sum(a, b)]", mutation), "one: 2 places")
  })
})
