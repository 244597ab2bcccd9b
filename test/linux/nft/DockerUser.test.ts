import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { findChains, keepAccepted, removeAccepted } from "../../../adapters/linux/nft/DockerUser.ts"
import { describeInNamespace, run } from "../../lab/ThreadNamespace.ts"

const mark = { mark: 0x1000, mask: 0x3000 }
const [command, command6] = ["iptables-nft", "ip6tables-nft"]
const accept = (text: string) =>
  `-m mark --mark ${text} -m conntrack --ctstate DNAT -m comment --comment portmapper -j ACCEPT`
const ours = accept("0x1000/0x3000")

describeInNamespace("our rule in DOCKER-USER", () => {
  const rules = (by = command) =>
    run(`${by} -S DOCKER-USER`)
      .split("\n")
      .filter((line) => line.startsWith("-A"))
      .map((line) => line.replace("-A DOCKER-USER ", ""))

  it.live("is in no chain before Docker has made it", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* Effect.promise(findChains), [])
      assert.deepStrictEqual(yield* keepAccepted(mark), { chains: [], changed: [], failures: [] })
      assert.isFalse(yield* removeAccepted)
    })
  )

  it.live("comes last but for Docker's RETURN, in each table that has the chain", () =>
    Effect.gen(function* () {
      for (const by of [command, command6]) run(`${by} -N DOCKER-USER`)
      run(`${command} -A DOCKER-USER -s 192.0.2.0/24 -j DROP`)
      run(`${command} -A DOCKER-USER -j RETURN`)
      assert.deepStrictEqual(yield* keepAccepted(mark), {
        chains: [command, command6],
        changed: [command, command6],
        failures: []
      })
      assert.deepStrictEqual(rules(), ["-s 192.0.2.0/24 -j DROP", ours, "-j RETURN"])
      assert.deepStrictEqual(rules(command6), [ours])
      assert.deepStrictEqual((yield* keepAccepted(mark)).changed, [])
      assert.deepStrictEqual(
        yield* Effect.promise(findChains),
        [command, command6].map((by) => ({ command: by, accepts: true }))
      )
    })
  )

  const others = ["-m mark --mark 0x1 -j ACCEPT", "-s 192.0.2.0/24 -j DROP", "-j RETURN"]

  it.live("moves to its place, and there is one of it, of the right mark", () =>
    Effect.gen(function* () {
      run(`${command6} -A DOCKER-USER -s fd00::/8 -j DROP`)
      run(`${command} -I DOCKER-USER 1 ${accept("0x4000")}`)
      run(`${command} -I DOCKER-USER 1 -m mark --mark 0x1 -j ACCEPT`)
      run(`${command} -A DOCKER-USER ${ours}`)
      assert.deepStrictEqual((yield* keepAccepted(mark)).changed, [command, command6])
      assert.deepStrictEqual(rules(), [...others, ours])
      assert.deepStrictEqual(rules(command6), ["-s fd00::/8 -j DROP", ours])
    })
  )

  it.live("is removed whatever its mark, and no other rule is", () =>
    Effect.gen(function* () {
      run(`${command} -A DOCKER-USER ${accept("0x4000")}`)
      assert.isTrue(yield* removeAccepted)
      assert.deepStrictEqual(rules(), others)
      assert.deepStrictEqual(rules(command6), ["-s fd00::/8 -j DROP"])
      assert.isFalse(yield* removeAccepted)
    })
  )
}, ["iptables"])
