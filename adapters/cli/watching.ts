/**
 * The watch in a process: HTTP to an Engine, the record in the state directory, and the rule that lets redirected
 * traffic through the Engine's filter.
 */
import { Effect, Layer, type Scope, Semaphore } from "effect"
import type { Driver } from "../../src/protocol/Driver.ts"
import { Engine, type EngineError } from "../engine/Engine.ts"
import type { EngineAddress } from "../engine/EngineAddress.ts"
import * as EngineBackends from "../engine/EngineBackends.ts"
import * as EngineHttp from "../engine/EngineHttp.ts"
import { startWatch } from "../engine/Watch.ts"
import { type RecordError, WatchRecord } from "../engine/WatchRecord.ts"
import * as LinuxInterfaces from "../linux/netlink/LinuxInterfaces.ts"
import { keepAccepted, removeAccepted } from "../linux/nft/DockerUser.ts"
import { type AcceptMark, markText } from "../linux/nft/Ruleset.ts"
import { lastingState } from "../node/DefaultPaths.ts"

export interface WatchingOptions {
  readonly engine: EngineAddress
  readonly trustImageLabels: boolean
  readonly stateDirectory: string
  /** The mark of redirected packets; `undefined` if our table redirects none. */
  readonly mark: AcceptMark | undefined
  /** When to start managing the rule, which until then is a predecessor's; at once by default. */
  readonly begin?: Effect.Effect<void>
}

/** Returns the driver to serve. Published ports stay published when the scope closes. */
export const watching = ({
  engine,
  trustImageLabels,
  stateDirectory,
  mark,
  begin = Effect.void
}: WatchingOptions): Effect.Effect<Driver["Service"], EngineError | RecordError, Driver | Scope.Scope> =>
  Effect.gen(function* () {
    const services = yield* Layer.build(Layer.merge(EngineHttp.layer(engine), followingLayer(stateDirectory)))
    return yield* Effect.gen(function* () {
      const keep = mark === undefined ? Effect.void : yield* keepOpen(mark)
      let begun = false
      const keeping = Effect.gen(function* () {
        yield* begin
        begun = true
        return yield* Effect.forever(Effect.andThen(keep, Effect.sleep(checkInterval)))
      })
      yield* Effect.forkScoped(keeping)
      const onConnected = Effect.suspend(() => (begun ? keep : Effect.void))
      return yield* startWatch({ trustImageLabels, onConnected })
    }).pipe(Effect.provide(services))
  })

/** The driver of a `serve` without a watch: it follows interfaces, not containers. */
export const following = (stateDirectory: string) =>
  Effect.flatMap(Layer.build(followingLayer(stateDirectory)), (services) =>
    Effect.provideContext(startWatch({ trustImageLabels: false }), services)
  )

const followingLayer = (stateDirectory: string) =>
  Layer.merge(LinuxInterfaces.layer, WatchRecord.layer(stateDirectory, lastingState(stateDirectory)))

/** For `serve` with an Engine but without `--watch`. */
export const backendsOf = (engine: EngineAddress) =>
  EngineBackends.layer().pipe(Layer.provide(EngineHttp.layer(engine, { timeoutMillis: 2_000 })))

/** Removes the rule. To be called once the mappings are released, not before. */
export const releaseFilter = Effect.catch(Effect.asVoid(removeAccepted), (error) =>
  Effect.logError(`removing the rule in DOCKER-USER: ${error.message}`)
)

/** How often the rule is checked: firewalld's reload and `iptables -F` remove it without notice. */
const checkInterval = "10 seconds"

/** Keeps the rule in place; logs each finding once. */
const keepOpen = Effect.fnUntraced(function* (mark: AcceptMark) {
  const engine = yield* Engine
  const logged = new Set<string>()
  const once = (text: string, log: (text: string) => Effect.Effect<void>) => {
    if (logged.has(text)) return Effect.void
    logged.add(text)
    return log(text)
  }
  const turns = yield* Semaphore.make(1)
  const keep = Effect.gen(function* () {
    const { chains, changed, failures } = yield* keepAccepted(mark)
    if (changed.length > 0)
      yield* Effect.logInfo(`DOCKER-USER accepts the mark ${markText(mark)} now (${changed.join(", ")})`)
    for (const failure of failures)
      yield* once(`the Engine's filter may drop what is redirected: ${failure}`, Effect.logWarning)
    if (chains.length > 0 || failures.length > 0) return
    const info = yield* Effect.option(engine.info)
    if (info._tag === "None") return
    yield* info.value.firewall?.startsWith("nftables") === true
      ? once(
          `the Engine's firewall backend is nftables, which has no DOCKER-USER: start dockerd with --bridge-accept-fwmark=${markText(mark)}, else it drops what is redirected`,
          Effect.logWarning
        )
      : once(
          "there is no DOCKER-USER chain: the Engine writes no rules here, and needs none of ours",
          Effect.logInfo
        )
  })
  // Two concurrent runs would both find the rule missing.
  return turns.withPermits(1)(keep)
})
