/**
 * A session of the plugin over services that fail at random. A failed call leaves nothing behind, or the plugin
 * repairs what is left while it runs; answered mappings are there. Then it is killed, in the middle of its work or
 * at rest.
 */
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { setTimeout as sleep } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { Effect, Exit, type Scope } from "effect"
import type { Plugin } from "../../test/lab/Plugin.ts"
import { claim } from "./Claims.ts"
import { differences, list } from "./Compare.ts"
import { injectedOf, injectedTexts, switchOf } from "./Faults.ts"
import { textOf } from "./Ledger.ts"
import { employ, kill, start, type World } from "./World.ts"

export const faultyProgram: ReadonlyArray<string> = [fileURLToPath(new URL("faulty.ts", import.meta.url))]

export const faultyLife = Effect.fnUntraced(function* (
  world: World
): Effect.fn.Return<void, unknown, Scope.Scope> {
  const { random, startMillis, tally } = world
  const begun = performance.now()
  const failing = random.chance(0.3)
  if (failing) yield* letFail(world)
  const started = yield* Effect.exit(start(world))
  yield* letSucceed(world)
  if (Exit.isFailure(started)) {
    const text = String(started.cause)
    if (!failing || !injectedTexts.some((injected) => text.includes(injected))) yield* started
    tally.failedStarts++
    return
  }
  const plugin = started.value
  if (!failing) startMillis.usual = performance.now() - begun
  const listed = yield* settled(world, plugin)
  yield* claim(world, plugin, listed)

  yield* letFail(world)
  const clients = employ(world, plugin)
  yield* Effect.promise(() => sleep(5 + 3000 * random.next() ** 2))
  if (random.chance(0.5)) {
    clients.stop()
    yield* clients.ended
    yield* letSucceed(world)
    yield* settled(world, plugin)
    yield* kill(world, plugin.process)
    return
  }
  yield* kill(world, plugin.process)
  yield* clients.ended
  yield* letSucceed(world)
})

/** How long the plugin may take, once nothing fails any more, to repair what failures left. */
const settlesWithinMillis = 60_000

/**
 * Waits until nothing differs from what was answered and nothing of a failed call is left; reports what still
 * differs at the end of that time. Returns what is listed then.
 */
const settled = Effect.fnUntraced(function* ({ lab, ledger, tally }: World, plugin: Plugin) {
  const begun = performance.now()
  while (true) {
    const late = performance.now() - begun > settlesWithinMillis
    const listed = yield* list(plugin)
    ledger.settle(listed)
    const { lost, doubled } = yield* differences(lab, plugin, ledger, listed)
    const left = ledger
      .unanswered(listed)
      .filter(({ State }) => State !== "unconfirmed")
      .map((one) => `${textOf(one)} (${one.State}) is left of a call that failed`)
    if (lost.length + doubled.length + left.length === 0) return listed
    if (late) {
      tally.lost.push(...lost.map((text) => `${tally.kills}: ${text}`))
      tally.doubled.push(...[...doubled, ...left].map((text) => `${tally.kills}: ${text}`))
      return listed
    }
    yield* Effect.sleep(200)
  }
})

const letFail = ({ folder }: World) => Effect.sync(() => writeFileSync(switchOf(folder), ""))

/** Also adds up the failures injected so far. */
const letSucceed = ({ folder, tally }: World) =>
  Effect.sync(() => {
    rmSync(switchOf(folder), { force: true })
    const path = injectedOf(folder)
    const lines = existsSync(path) ? readFileSync(path, "utf8").trimEnd().split("\n") : []
    tally.injected = new Map(
      [...Map.groupBy(lines.toSorted(), (line) => line)].map(([call, all]) => [call, all.length])
    )
  })
