/** An attack on a real plugin, and what the kinds of attack share. */
import { Effect, Exit, Option, type Scope } from "effect"
import type { AgentError } from "../lab/Agent.ts"
import type { Plugin } from "../lab/Plugin.ts"
import { LabError } from "../lab/Process.ts"
import { request } from "../support/http.ts"
import { until } from "../support/until.ts"

/**
 * Attacks a plugin in its own lab and returns what got through, a line each: nothing where the plugin holds. Fails
 * where the lab can't be set up, the plugin does not start, or a legitimate client does not reach the attacked port.
 */
export type Attack = Effect.Effect<ReadonlyArray<string>, LabError | AgentError, Scope.Scope>

export const must = (what: string, holds: boolean): Effect.Effect<void, LabError> =>
  holds ? Effect.void : Effect.fail(new LabError({ operation: what, detail: "it does not" }))

/** An Engine gives up after about 15 seconds; a busy machine needs part of the 10 that this allows. */
const patience = "10 seconds"

/** How long a call with status 200 took, in milliseconds, or why it failed. */
export const timeOf = (call: Effect.Effect<{ readonly status: number }, LabError>) =>
  Effect.gen(function* () {
    const began = performance.now()
    const answer = yield* call.pipe(
      Effect.map(({ status }) => (status === 200 ? "" : `is answered by ${status}`)),
      Effect.catch((error) => Effect.succeed(`fails: ${error.message}`)),
      Effect.timeoutOption(patience)
    )
    const failure = Option.getOrElse(answer, () => `is not answered within ${patience}`)
    return { millis: Math.round(performance.now() - began), failure }
  })

/** A sample from the plugin's metrics page. */
export const sample = ({ socket }: Plugin, name: string): Effect.Effect<number, LabError> =>
  Effect.tryPromise({
    try: () => request(socket, "/metrics", "", { method: "GET" }),
    catch: (error) => new LabError({ operation: "GET /metrics", detail: String(error) })
  }).pipe(
    Effect.map(({ body }) => {
      const line = body.split("\n").find((line) => line.startsWith(`${name} `))
      return Number(line?.slice(name.length + 1))
    })
  )

/**
 * Maps and unmaps a port so many times as an Engine does, one after the other: the slowest answer, and the failures.
 */
export const mapAgain = (plugin: Plugin, times: number, port = 9000) =>
  Effect.gen(function* () {
    const failures: Array<string> = []
    let slowest = 0
    for (let turn = 0; turn < times; turn++) {
      const mapping = yield* timeOf(plugin.map([entryOf(port)]))
      const unmapping = yield* timeOf(plugin.unmap([bindingOf(port)]))
      if (mapping.failure !== "") failures.push(`MapPorts ${mapping.failure}`)
      if (unmapping.failure !== "") failures.push(`UnmapPorts ${unmapping.failure}`)
      slowest = Math.max(slowest, mapping.millis, unmapping.millis)
    }
    return { slowest, failures }
  })

const entryOf = (port: number) => `tcp 0.0.0.0:${port} 172.31.0.2:80`

const bindingOf = (FrontendPort: number) => ({
  Proto: 6,
  FrontendIP: "0.0.0.0",
  FrontendPort,
  BackendIP: "172.31.0.2",
  BackendPort: 80,
  DiscardReq: false,
  AllowForwarding: false,
  NAT: null,
  Error: null
})

/** Whether the condition holds before the wait is over. */
export const eventually = <E, R>(look: Effect.Effect<boolean, E, R>): Effect.Effect<boolean, never, R> =>
  Effect.map(Effect.exit(until(look)), Exit.isSuccess)
