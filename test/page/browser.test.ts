/** The page of a real plugin, as Chromium shows it. With PORTMAPPER_PICTURES=FOLDER it is photographed on the way. */
import { join } from "node:path"
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Browser from "../lab/Browser.ts"
import { describeLab } from "../lab/describeLab.ts"
import * as Lab from "../lab/Lab.ts"
import * as Plugin from "../lab/Plugin.ts"
import { until } from "../support/until.ts"

const served = ["--page", "127.0.0.1:9080"]
const url = "http://127.0.0.1:9080/"

const row = (text: string) => `#ports tbody tr:has-text("${text}")`

const photograph = (tab: Browser.Tab, name: string) => {
  const folder = process.env["PORTMAPPER_PICTURES"]
  if (folder === undefined) return Effect.void
  return Effect.forEach(["light", "dark"] as const, (colorScheme) =>
    Effect.forEach([1600, 400], (width) =>
      tab.step(async (page) => {
        await page.emulateMedia({ colorScheme })
        await page.setViewportSize({ width, height: 1000 })
        await page.waitForTimeout(400)
        await page.screenshot({ path: join(folder, `${name}-${colorScheme}-${width}.png`) })
        await page.emulateMedia({ colorScheme: "light" })
        await page.setViewportSize({ width: 1600, height: 900 })
      })
    )
  )
}

/** In both themes, and where a reader wants no motion. */
const isFit = (tab: Browser.Tab) =>
  Effect.forEach(["dark", "light"] as const, (colorScheme) =>
    Effect.gen(function* () {
      yield* tab.step((page) => page.emulateMedia({ colorScheme, reducedMotion: "reduce" }))
      assert.deepStrictEqual(yield* tab.unfit, [])
    })
  )

describeLab("the page in Chromium", ["chromium"], () => {
  it.live("shows what is published, what flows and what is wrong, through a kill and a takeover", () =>
    Effect.gen(function* () {
      const { host, client, c1 } = yield* Lab.make({
        hostSysctls: { "net.netfilter.nf_conntrack_acct": "1" }
      })
      yield* c1.agent.echo({ protocol: "tcp", host: "0.0.0.0", port: 80 })
      const browser = yield* Browser.start(host)
      const first = yield* Plugin.start(host, { arguments: served })
      const tab = yield* browser.open(url, { viewport: { width: 1600, height: 900 } })
      yield* tab.step((page) => page.getByText("Nothing is published yet").waitFor())
      yield* isFit(tab)
      yield* photograph(tab, "empty")

      // Traffic.
      yield* first.map(["tcp 0.0.0.0:8080 172.31.0.2:80"])
      yield* first.map(["tcp 0.0.0.0:8081 172.31.0.2:80"], { "portmapper.allow": "10.0.0.0/8" })
      yield* tab.step((page) => page.locator(row("8081/tcp")).waitFor())
      const transfer = yield* client.agent.transfer({ host: "10.99.0.1", port: 8081 })
      yield* transfer.advance(5)
      yield* tab.step((page) => page.locator(`${row("8081/tcp")} .connections >> text="1"`).waitFor())
      yield* tab.step((page) => page.locator(`${row("8081/tcp")} .bytes:has-text("B")`).waitFor())

      // A port's own view, by the keyboard alone.
      yield* tab.step(async (page) => {
        await page.keyboard.press("/")
        await page.keyboard.type("8081 allow=")
        await page.locator(row("8080/tcp")).waitFor({ state: "detached" })
        await page.keyboard.press("ArrowDown")
        await page.keyboard.press("Enter")
        await page.locator('.port h2:has-text("0.0.0.0:8081/tcp")').waitFor()
      })
      assert.strictEqual(
        new URL(tab.page.url()).hash,
        "#filter=8081+allow%3D&port=tcp+0.0.0.0%3A8081+172.31.0.2%3A80"
      )
      yield* isFit(tab)
      yield* photograph(tab, "port")
      const command = yield* tab.step((page) => page.locator(".port .command code").last().textContent())
      yield* tab.step(async (page) => {
        await page.keyboard.press("Escape")
        await page.locator(".port").waitFor({ state: "detached" })
        await page.keyboard.press("/")
        await page.keyboard.press("Escape")
        await page.locator(row("8080/tcp")).waitFor()
      })
      assert.deepStrictEqual(tab.complaints, [])

      // A kill, and a start that meets a conflict.
      yield* first.process.kill("SIGKILL")
      yield* tab.step((page) => page.getByText("No connection to the plugin.").waitFor())
      yield* isFit(tab)
      yield* photograph(tab, "lost")
      const held = yield* host.agent.hold({ protocol: "tcp", host: "0.0.0.0", port: 8081 })
      const second = yield* Plugin.start(host, { folder: first.folder, arguments: served })
      yield* tab.step((page) => page.locator('.link[data-phase="live"]').waitFor())
      const wrong = yield* tab.step((page) => page.locator("#ports tbody tr").first().textContent())
      assert.include(wrong, "8081/tcp")
      assert.include(wrong, "address already in use")
      assert.include(wrong, "ss -Hlnpt 'sport = :8081'")
      yield* isFit(tab)
      yield* photograph(tab, "conflict")
      yield* held.stop
      yield* tab.step((page) => page.locator(`${row("8081/tcp")}:has-text("live")`).waitFor())

      // The browser itself complains of connections that are refused.
      const complaints = tab.complaints.splice(0)
      assert.deepStrictEqual(
        complaints.filter((text) => !/net::ERR_(CONNECTION_REFUSED|INCOMPLETE_CHUNKED_ENCODING)/.test(text)),
        []
      )

      // A takeover.
      yield* tab.step((page) =>
        page.evaluate(`{
          window.phases = new Set()
          new MutationObserver(() => window.phases.add(document.querySelector(".link")?.dataset.phase))
            .observe(document.body, { subtree: true, childList: true, attributes: true })
        }`)
      )
      yield* Plugin.start(host, { folder: second.folder, arguments: [...served, "--takeover"] })
      yield* tab.step((page) => page.locator('.event-list li[data-kind="tookOver"]').waitFor())
      assert.deepStrictEqual(yield* tab.step((page) => page.evaluate("[...window.phases]")), ["live"])
      assert.deepStrictEqual(tab.complaints, [])

      // The command that the page gives.
      yield* host.sh((command ?? "").replace("portmapper", `${process.execPath} adapters/cli/main.ts`))
      yield* tab.step((page) => page.locator(row("8081/tcp")).waitFor({ state: "detached" }))
    })
  )

  it.live("finds one of 10,000 ports, and holds no more of them than are in sight", () =>
    Effect.gen(function* () {
      const { host } = yield* Lab.make()
      const browser = yield* Browser.start(host)
      const plugin = yield* Plugin.start(host, { arguments: served })
      const groups = Array.from({ length: 10_000 }, (_, at) => ({
        Reqs: [
          {
            ...{ Proto: 6, BackendIP: "172.31.0.2", BackendPort: 80, FrontendIP: "0.0.0.0" },
            ...{ FrontendPort: 20_000 + at, FrontendPortEnd: 20_000 + at }
          }
        ],
        Labels: {}
      }))
      for (let at = 0; at < groups.length; at += 1000) {
        const { status, body } = yield* plugin.call("MapGroups", { Groups: groups.slice(at, at + 1000) })
        assert.strictEqual(status, 200, body)
      }
      const tab = yield* browser.open(url, { viewport: { width: 1600, height: 900 } })
      yield* tab.step((page) => page.locator('#ports[aria-rowcount="10001"]').waitFor())
      yield* tab.step(async (page) => {
        await page.locator("#ports").focus()
        await page.keyboard.press("End")
        await page.locator(row("29999/tcp")).waitFor()
      })
      assert.isBelow(yield* tab.step((page) => page.locator("#ports tbody tr").count()), 100)
      yield* photograph(tab, "many")
      yield* tab.step(async (page) => {
        await page.keyboard.press("/")
        await page.keyboard.type("27345")
        await page.locator('.found:has-text("1 of 10,000")').waitFor()
      })
      assert.strictEqual(yield* tab.step((page) => page.locator("#ports tbody tr").count()), 1)
      // Another reader opens the link.
      yield* tab.step((page) => page.waitForURL(/#filter=27345$/))
      const other = yield* browser.open(tab.page.url())
      yield* other.step((page) => page.locator(row("27345/tcp")).waitFor())
      assert.deepStrictEqual([...tab.complaints, ...other.complaints], [])
    })
  )

  it.live("shows hostile names as text, closes the stream of a hidden page, and fits 360 pixels", () =>
    Effect.gen(function* () {
      const { host } = yield* Lab.make()
      const browser = yield* Browser.start(host)
      const plugin = yield* Plugin.start(host, { arguments: served })
      const hostile = `<img src=x onerror="window.hacked=1">\u001b[31m\u202eeman ${"שלום ".repeat(20)}`
      const { error } = yield* plugin.map(["tcp 0.0.0.0:8080 172.31.0.2:80"], {
        "portmapper.container": `${hostile}/0123456789ab`,
        "portmapper.cni-network": `${hostile}${"x".repeat(10_000)}`
      })
      assert.strictEqual(error, "")
      const tab = yield* browser.open(url, { viewport: { width: 360, height: 640 } })
      yield* tab.step((page) => page.locator(row("8080/tcp")).click())
      const text = yield* tab.step((page) => page.locator(".port").textContent())
      assert.include(text, '<img src=x onerror="window.hacked=1">\\u001b[31m\\u202eeman שלום')
      yield* isFit(tab)
      yield* photograph(tab, "hostile")
      yield* tab.step((page) => page.setViewportSize({ width: 360, height: 640 }))
      const seen = "[window.hacked, document.images.length, document.documentElement.scrollWidth]"
      assert.deepStrictEqual(yield* tab.step((page) => page.evaluate(seen)), [undefined, 0, 360])

      const turn = (state: string) =>
        tab.step((page) =>
          page.evaluate(`{
            Object.defineProperty(document, "visibilityState", { value: "${state}", configurable: true })
            document.dispatchEvent(new Event("visibilitychange"))
          }`)
        )
      const streams = Effect.map(host.sh("ss -Htn state established 'sport = :9080'"), (text) => text.trim())
      yield* turn("hidden")
      yield* tab.step((page) => page.locator('.link[data-phase="hidden"]').waitFor())
      yield* until(streams, (text) => text === "")
      yield* plugin.map(["tcp 0.0.0.0:8081 172.31.0.2:80"])
      yield* turn("visible")
      yield* tab.step((page) => page.locator('.link[data-phase="live"]').waitFor())
      yield* tab.step(async (page) => {
        await page.getByRole("button", { name: "Close this port" }).click()
        await page.locator(row("8081/tcp")).waitFor()
      })
      assert.deepStrictEqual(tab.complaints, [])
    })
  )
})
