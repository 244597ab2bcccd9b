/**
 * Who does the work of the executable: the running plugin, asked over its socket; and only where none answers is the mapper
 * loaded into this process. Imports nothing heavy before that.
 */
import { type Caller, refusal, type WithCaller } from "./Caller.ts"
import { CniError, codes } from "./CniError.ts"
import type { NetworkConfig } from "./NetworkConfig.ts"
import { connect } from "./SocketCaller.ts"
import type { Opened } from "./Standalone.ts"

/** How long another process may have the state before this one gives up. */
const patienceMillis = 20_000

/** How long one attempt waits for the state; then a plugin may have come up that is to be asked instead. */
const attemptMillis = 1_000

export const withFoundCaller: WithCaller = async (config, when, work) => {
  const deadline = Date.now() + patienceMillis
  while (true) {
    const caller = await connect(config.socket)
    if (caller !== undefined) return finish(caller, work)
    if (when === "recorded" && !hasRecord(config.state)) return
    const { openStandalone } = await import("./Standalone.ts")
    const alone = await openStandalone(config.state, attemptMillis)
    if (alone._tag === "Open") return finish(aloneCaller(alone), work, config)
    if (alone._tag === "Failed") throw new CniError(codes.refused, alone.why, nobodyServes(config))
    if (Date.now() >= deadline)
      throw new CniError(
        codes.tryAgain,
        alone.why,
        `${nobodyServes(config)}; if a portmapper serves another socket, name it by the key socket`
      )
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

const aloneCaller = ({ call, close }: Extract<Opened, { readonly _tag: "Open" }>): Caller => ({
  call: async (method, request, owner) => {
    const answered = await call(method, request, owner)
    if (answered._tag === "Answer") return answered.value
    throw refusal(answered.kind, answered.message)
  },
  close
})

const nobodyServes = ({ socket }: NetworkConfig): string => `no portmapper serves ${socket}`

const finish = async (
  caller: Caller,
  work: (caller: Caller) => Promise<void>,
  alone?: NetworkConfig
): Promise<undefined> => {
  try {
    await work(caller)
  } catch (cause) {
    if (alone === undefined || !(cause instanceof CniError) || cause.code !== codes.refused) throw cause
    const without = `${nobodyServes(alone)}, and without one only what the kernel redirects can be published`
    throw new CniError(
      cause.code,
      cause.message,
      [cause.details, without].filter((part) => part !== "").join("; ")
    )
  } finally {
    await caller.close()
  }
}

const hasRecord = (state: string): boolean =>
  process.getBuiltinModule("node:fs").existsSync(`${state}/mappings.db`)
