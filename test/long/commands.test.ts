/** The two commands of the README, each on a bare Debian with Node and npm, from a checkout with nothing installed. */
import { execFileSync } from "node:child_process"
import { cpSync, mkdirSync, realpathSync, symlinkSync } from "node:fs"
import { dirname, join } from "node:path"
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Debian from "../lab/Debian.ts"
import { describeLab } from "../lab/describeLab.ts"
import * as Lab from "../lab/Lab.ts"
import { temporaryFolder } from "../support/folders.ts"
import { root } from "./packaging.ts"

/** What a clone of this working tree has, in a folder. */
const clone = (folder: string): void => {
  mkdirSync(folder, { recursive: true })
  execFileSync(
    "sh",
    [
      "-ec",
      `git ls-files -z --cached --others --exclude-standard | tar --null --files-from=- -cf - | tar -C "${folder}" -xf -`
    ],
    { cwd: root }
  )
}

/** This machine's Node and npm in another root. */
const installNode = (other: string): void => {
  const found = (command: string) =>
    realpathSync(
      execFileSync("sh", ["-c", `PATH=${systemPath} command -v ${command}`], { encoding: "utf8" }).trim()
    )
  cpSync(found("node"), join(other, "usr/bin/node"))
  const modules = join(other, "usr/lib/node_modules")
  cpSync(join(dirname(found("npm")), ".."), join(modules, "npm"), { recursive: true })
  symlinkSync("../lib/node_modules/npm/bin/npm-cli.js", join(other, "usr/bin/npm"))
}

/** Without the checkout's own programs. */
const systemPath = (process.env["PATH"] ?? "")
  .split(":")
  .filter((folder) => !folder.includes("node_modules"))
  .join(":")

describeLab("on a bare Debian", ["mmdebstrap", "npm"], () => {
  it.live("npm ci && npm test tests, and npm ci && npm start serves", () =>
    Effect.gen(function* () {
      const { host, client, c1 } = yield* Lab.make()
      yield* c1.agent.echo({ protocol: "tcp", host: "0.0.0.0", port: 80 })
      // The lab reaches no registry: this machine's npm fetches what the one inside finds in its cache.
      const folder = yield* temporaryFolder
      const fetched = join(folder, "checkout")
      clone(fetched)
      const cache = join(folder, "cache")
      const env = { ...process.env, PATH: systemPath, npm_config_cache: cache }
      execFileSync("npm", ["ci"], { cwd: fetched, env, stdio: "ignore" })

      const debian = yield* Debian.make(host, ["nftables"])
      installNode(debian.root)
      clone(join(debian.root, "srv/portmapper"))
      cpSync(cache, join(debian.root, "root/.npm"), { recursive: true })
      const inside = "cd /srv/portmapper && export HOME=/root npm_config_offline=true"

      const tested = yield* debian.exec(`${inside} && npm ci && npm test -- test/docker test/protocol`)
      assert.strictEqual(tested.code, 0, tested.stdout + tested.stderr)
      assert.match(tested.stdout, /Test Files .* passed/)

      const started = yield* debian.sh(
        `${inside}; (npm ci && exec npm start) >/srv/log 2>&1 &
        until grep -q "^listening on" /srv/log || ! kill -0 $!; do sleep 0.5; done; cat /srv/log`
      )
      assert.match(started, /mode nat[\s\S]*^listening on /m)
      yield* debian.sh(`${inside} && npm run -s portmapper -- map -p 8080:80 --to 172.31.0.2`)
      assert.strictEqual((yield* client.agent.tcp({ host: "10.99.0.1", port: 8080 })).outcome, "answered")
    })
  )
})
