/** `npm run demo` as a new user sees it. */
import { spawnSync } from "node:child_process"
import { existsSync } from "node:fs"
import { join } from "node:path"
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { describeLab } from "../lab/describeLab.ts"
import { run } from "../support/command.ts"

const root = join(import.meta.dirname, "../..")
const demo = join(root, "scripts/demo/main.ts")

it.live("the demo lists everything that this machine lacks for it, and does nothing", () =>
  Effect.gen(function* () {
    const { status, stdout, stderr } = yield* run([process.execPath, demo], { env: { PATH: "/nonexistent" } })
    assert.deepStrictEqual({ status, stdout }, { status: 1, stdout: "" })
    assert.match(
      stderr,
      /^demo: it needs .*ip \(on Debian: apt install iproute2\), and nft \(on Debian: apt install nftables\)\n$/
    )
  })
)

/** What a demo prints; it must leave none of its namespaces behind. */
const shown = Effect.fnUntraced(function* (...name: ReadonlyArray<string>) {
  const built = yield* run([process.execPath, join(root, "scripts/build/fresh.mjs")])
  assert.deepStrictEqual([built.status, built.stdout], [0, ""])
  const inShell = ["sh", "-c", 'echo "$$"; exec "$@"', "sh"]
  const { status, stdout, stderr } = yield* run([...inShell, process.execPath, demo, ...name])
  assert.deepStrictEqual({ status, stderr }, { status: 0, stderr: "" })
  const [pid = "", ...lines] = stdout.split("\n").map((line) => line.trim())
  assert.notInclude(spawnSync("ip", ["netns"], { encoding: "utf8" }).stdout, `portmapper-demo-${pid}-`)
  return { stdout, lines }
})

describeLab("the demo", [], () => {
  it.live("publishes a port, fetches from outside, prints each step, and leaves nothing behind", () =>
    Effect.gen(function* () {
      const { stdout, lines } = yield* shown()
      for (const line of [
        "0.0.0.0:8080/tcp -> 172.31.0.2:80",
        "Hello from the container. You come from 10.99.0.2.",
        "unmapped 0.0.0.0:8080/tcp",
        "Connection refused"
      ])
        assert.include(lines, line)
      assert.match(stdout, /^ +0\.0\.0\.0:8080\/tcp +172\.31\.0\.2:80 +nat .* live /m)
      assert.match(stdout, /elements = \{ tcp \. 8080 counter packets [1-9].*: 172\.31\.0\.2 \. 80 \}$/m)
      const folder = /listening on (\S+)\/portmapper\.sock/.exec(stdout)?.[1] ?? assert.fail(stdout)
      assert.isFalse(existsSync(folder))
    })
  )

  it.live("replaces three replicas one by one, and no request fails", () =>
    Effect.gen(function* () {
      const { lines } = yield* shown("redeploy")
      assert.lengthOf(
        lines.filter((line) => /^[1-9][\d,]* requests, 0 failed\.$/.test(line)),
        1
      )
      const counts = lines.filter((line) => /^[\d-]+( +[\d-]+){6}$/.test(line))
      const [before, after] = [/^\d+ +- +\d+ +- +\d+ +- +0$/, /^- +\d+ +- +\d+ +- +\d+ +0$/]
      assert.match(counts[0] ?? "", before)
      assert.match(counts.at(-1) ?? "", after)
    })
  )
})
