import * as Fs from "node:fs"
import * as Path from "node:path"
import { assert, it } from "@effect/vitest"
import { Result } from "effect"
import { decodeMessage, encodeMessage, handoverVersion, type Tag } from "../../adapters/upgrade/Messages.ts"

const vector = Path.join(import.meta.dirname, "../vectors/0.1.0/handover.jsonl")

it("the handover's version 2 is that of 0.1.0, message by message: another message is another version", () => {
  const recorded = Fs.readFileSync(vector, "utf8").trimEnd().split("\n")
  const tags = recorded.map((line) => JSON.parse(line)._tag as Tag)
  assert.strictEqual(handoverVersion, 2)
  assert.strictEqual(new Set(tags).size, 12)
  for (const [index, line] of recorded.entries()) {
    const message = Result.getOrThrow(decodeMessage(Buffer.from(line), ...tags.slice(index, index + 1)))
    assert.strictEqual(Buffer.from(encodeMessage(message)).toString(), line)
  }
})
