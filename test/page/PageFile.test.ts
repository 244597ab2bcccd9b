import { createHash } from "node:crypto"
import * as Fs from "node:fs"
import * as Path from "node:path"
import * as Zlib from "node:zlib"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { bodyFor, readPageFile } from "../../adapters/page/PageFile.ts"
import { temporaryFolder } from "../support/folders.ts"

const hash = (text: string) => `'sha256-${createHash("sha256").update(text).digest("base64")}'`

const fileWith = (html: string) =>
  Effect.gen(function* () {
    const path = Path.join(yield* temporaryFolder, "page.html")
    Fs.writeFileSync(path, html)
    return yield* readPageFile(path)
  })

describe("the page's file", () => {
  it.live("is allowed to run its own script and styles, and nothing else", () =>
    Effect.gen(function* () {
      const script = 'const a = "<style>b</style>".length;\nrun(a)'
      const { policy } = yield* fileWith(
        `<!doctype html><style>a { b: c }</style><script type="module">${script}</script>`
      )
      const rest = `connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`
      assert.include(policy, `default-src 'none'; script-src ${hash(script)}; `)
      assert.include(policy, hash("a { b: c }"))
      assert.include(policy, rest)
    })
  )

  it.live("that was built has one script and one style element, and stays under 120 KB compressed", () =>
    Effect.gen(function* () {
      const { policy, bodies } = yield* readPageFile()
      assert.strictEqual(policy.match(/sha256-/g)?.length, 2)
      for (const [encoding, body] of bodies)
        if (encoding !== "identity") assert.isBelow(body.length, 120_000, encoding)
    })
  )

  it.live("is sent as the client takes it, the same in each encoding", () =>
    Effect.gen(function* () {
      const html = `<!doctype html>${"text ".repeat(1000)}`
      const file = yield* fileWith(html)
      const sent = (accepted?: string) => {
        const [encoding, body] = bodyFor(file, accepted)
        const decode = { br: Zlib.brotliDecompressSync, gzip: Zlib.gunzipSync, identity: Buffer.from }[
          encoding
        ]
        assert.strictEqual(decode(body).toString(), html)
        return encoding
      }
      assert.deepStrictEqual(
        ["gzip, deflate, br", "gzip;q=0.5, br;q=0", "BR", "deflate", "", undefined].map(sent),
        ["br", "gzip", "br", "identity", "identity", "identity"]
      )
    })
  )

  it.live("is an error that names it where it was not built", () =>
    Effect.gen(function* () {
      const { message } = yield* Effect.flip(readPageFile("/nowhere/page.html"))
      assert.strictEqual(message, "reading the page /nowhere/page.html failed: no such file or directory")
    })
  )
})
