import * as Fs from "node:fs"
import * as Path from "node:path"
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { isGone, namespaceLabel, namespaceLabels } from "../../adapters/cni/NetworkNamespace.ts"
import { temporaryFolder } from "../support/folders.ts"

/** A link to a namespace, as good as a mount of it. */
const linked = Effect.map(temporaryFolder, (folder) => {
  const path = Path.join(folder, "netns")
  const point = (to: string) => {
    Fs.rmSync(path, { force: true })
    Fs.symlinkSync(to, path)
  }
  point("/proc/self/ns/net")
  return { folder, path, point }
})

it.live("knows that a namespace is gone once its path shows another one or none", () =>
  Effect.gen(function* () {
    const { folder, path, point } = yield* linked
    const label = namespaceLabels(path)[namespaceLabel] ?? ""
    assert.strictEqual(label, `${Fs.statSync("/proc/self/ns/net").ino} ${path}`)
    assert.isFalse(isGone(label))
    point("/proc/self/ns/uts")
    assert.isTrue(isGone(label))
    Fs.rmSync(path)
    assert.isTrue(isGone(label))
    Fs.rmSync(folder, { recursive: true })
    assert.isFalse(isGone(label), "where even the folder is missing, this process sees another file system")
  }).pipe(Effect.scoped)
)

it.live("takes nothing else for a namespace, and nothing else for the end of one", () =>
  Effect.gen(function* () {
    const { path } = yield* linked
    const label = namespaceLabels(path)[namespaceLabel] ?? ""
    Fs.rmSync(path)
    Fs.writeFileSync(path, "")
    assert.deepStrictEqual(namespaceLabels(path), {})
    assert.isFalse(isGone(label), "a mount point without its mount")
    assert.deepStrictEqual(namespaceLabels("/run/netns/no-such-namespace"), {})
    for (const text of ["", "7", "/run/netns/a", "x /run/netns/a"]) assert.isFalse(isGone(text), text)
  }).pipe(Effect.scoped)
)
