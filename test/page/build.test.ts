import { readFileSync } from "node:fs"
import { gzipSync } from "node:zlib"
import { assert, describe, it } from "@effect/vitest"
import { buildPage } from "../../scripts/build/page.ts"

describe("the page's file", () => {
  it("is what npm run build makes of the sources, small, and complete in itself", async () => {
    const html = await buildPage()
    const built = readFileSync(new URL("../../dist/bin/page.html", import.meta.url), "utf8")
    assert.isTrue(html === built, "dist/ is older than adapters/page/app: run npm run build")
    assert.isBelow(gzipSync(html).length, 120_000)
    const [before = "", , after = ""] = html.split(/<script type="module">|<\/script>/)
    const markup = [before.replace(/<style>.*<\/style>/s, ""), after].join("")
    const addresses = [...markup.matchAll(/\b(?:src|href)="([^"]{0,5})/g)].map(([, address]) => address)
    assert.deepStrictEqual(addresses, ["data:"])
    assert.notMatch(markup, /<(?:script|style)|\bstyle=|\bon\w+=/)
  })
})
