/** The rule that lets redirected traffic through an Engine's filter, as `serve --watch` keeps it. */
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { engineLab, watching } from "../lab/Containers.ts"
import { describeLab } from "../lab/describeLab.ts"
import * as Plugin from "../lab/Plugin.ts"
import { temporaryFolder } from "../lab/Plugin.ts"
import { fakeEngine, ping } from "../support/engine.ts"

const ourRule =
  "-A DOCKER-USER -m mark --mark 0x1000/0x1000 -m conntrack --ctstate DNAT -m comment --comment portmapper -j ACCEPT"

describeLab("the rule in DOCKER-USER", ["iptables"], () => {
  it.live(
    "is added to every kind of table that has the chain, after the user's rules, and removed by reset",
    () =>
      Effect.gen(function* () {
        const { host } = yield* engineLab
        const commands = ["iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy"]
        for (const command of commands) {
          yield* host.check(command, ["-N", "DOCKER-USER"])
          yield* host.check(command, ["-A", "DOCKER-USER", "-i", "up0", "-j", "DROP"])
        }
        const rules = (command: string) =>
          Effect.map(host.check(command, ["-S", "DOCKER-USER"]), (text) =>
            text.split("\n").filter((line) => line.startsWith("-A "))
          )
        const users = "-A DOCKER-USER -i up0 -j DROP"
        const folder = yield* temporaryFolder
        const plugin = yield* Plugin.start(host, {
          folder,
          arguments: watching(`${folder}/nobody.sock`)
        })
        yield* plugin.process.waitForLine("DOCKER-USER accepts the mark 0x1000/0x1000")
        for (const command of commands)
          assert.deepStrictEqual(yield* rules(command), [users, ourRule], command)
        // A rule appended later is moved before it.
        yield* host.check("iptables-nft", ["-A", "DOCKER-USER", "-i", "up1", "-j", "DROP"])
        yield* plugin.process.waitForLine("(iptables-nft)")
        assert.deepStrictEqual(yield* rules("iptables-nft"), [
          users,
          "-A DOCKER-USER -i up1 -j DROP",
          ourRule
        ])
        // As an Engine does when it finds its chains missing.
        const before = plugin.process.lines().length
        yield* host.check("ip6tables-legacy", ["-F", "DOCKER-USER"])
        yield* host.check("ip6tables-legacy", ["-X", "DOCKER-USER"])
        yield* host.check("ip6tables-legacy", ["-N", "DOCKER-USER"])
        yield* host.check("ip6tables-legacy", ["-A", "DOCKER-USER", "-j", "RETURN"])
        yield* plugin.process.waitForLine("(ip6tables-legacy)", { after: before })
        assert.deepStrictEqual(yield* rules("ip6tables-legacy"), [ourRule, "-A DOCKER-USER -j RETURN"])
        yield* plugin.process.stop
        const reset = yield* host.exec(process.execPath, [
          ...[
            "adapters/cli/main.ts",
            "reset",
            "--yes",
            "--state",
            `${folder}/state`,
            "--socket",
            plugin.socket
          ],
          ...["--spec-dir", folder]
        ])
        assert.strictEqual(reset.code, 0, reset.stderr)
        assert.include(reset.stdout, "removed our rule in DOCKER-USER\n")
        for (const command of commands) assert.notInclude(yield* rules(command), ourRule, command)
      })
  )

  it.live("is missed only where the Engine filters what it forwards, and that is logged", () =>
    Effect.gen(function* () {
      const { host } = yield* engineLab
      const watched = Effect.fnUntraced(function* (info: object) {
        const engine = yield* fakeEngine({
          ...ping("1.52"),
          "/info": { body: { ServerVersion: "29.0.0", ...info } },
          "/containers/json": { body: [] },
          "/networks": { body: [] },
          "/events": { body: "\n", open: true }
        })
        return (yield* Plugin.start(host, { arguments: watching(engine.path) })).process
      })
      const nftables = yield* watched({ FirewallBackend: { Driver: "nftables" } })
      yield* nftables.waitForLine(
        "the Engine's firewall backend is nftables, which has no DOCKER-USER: start dockerd with --bridge-accept-fwmark=0x1000/0x1000, else it drops what is redirected"
      )
      yield* nftables.stop
      const none = yield* watched({})
      yield* none.waitForLine(
        "there is no DOCKER-USER chain: the Engine writes no rules here, and needs none of ours"
      )
    })
  )
})
