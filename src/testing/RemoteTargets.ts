/**
 * A plugin behind HTTP, and one behind JSON-RPC, as targets of the harness. The caller supplies what carries the
 * messages.
 */
import { Effect, Result } from "effect"
import type { ListPortsResponse } from "../protocol/Messages.ts"
import type { Wire } from "./conformance/Wire.ts"
import { addressOf, endpointTextOf, frontendTextOf, protocols } from "./ModelAddress.ts"
import type { Call, Outcome, RemoteTarget } from "./Target.ts"

/** A plugin over HTTP: only what it lists is visible. */
export const wireTarget = (wire: Wire): RemoteTarget =>
  remoteTarget(({ method, value, owner }) =>
    wire
      .send({
        method: "POST",
        path: `/${method}`,
        headers: [
          ["Host", "plugin.moby.localhost"],
          ["Portmapper-Owner", owner]
        ],
        body: value === undefined ? "" : `${JSON.stringify(value)}\n`
      })
      .pipe(
        Effect.map(({ status, body }): Outcome => {
          const read = jsonOf(body)
          if (status === 200) return { _tag: "Answered", answer: read }
          const text = textOf(read, "Err") ?? body
          const fault = faults.get(status)
          return fault === undefined || text.startsWith("internal error")
            ? { _tag: "Broken", text: `status ${status}: ${text}` }
            : { _tag: "Refused", fault, text }
        }),
        Effect.catch((error) =>
          Effect.succeed<Outcome>({ _tag: "Broken", text: `no answer: ${error.message}` })
        )
      )
  )

/** A JSON-RPC session: `ask` sends one line and returns the next line received. */
export const rpcTarget = (ask: (line: string) => Effect.Effect<string>): RemoteTarget => {
  let lastId = 0
  return remoteTarget((call) =>
    Effect.suspend(() => {
      const sent = ++lastId
      return Effect.map(ask(rpcText(call, sent)), (line): Outcome => {
        const { result, error, id } = (jsonOf(line) ?? {}) as RpcAnswer
        if (id !== sent) return { _tag: "Broken", text: `this is no answer to ${sent}: ${line}` }
        if (error === undefined) return { _tag: "Answered", answer: result }
        const fault = rpcFaults.get(error.code)
        return fault === undefined
          ? { _tag: "Broken", text: line }
          : { _tag: "Refused", fault, text: error.message }
      })
    })
  )
}

/**
 * One call as a JSON-RPC message. A value that is not an object is sent within an array, as the specification
 * requires.
 */
export const rpcText = ({ method, value, owner }: Call, id: number, fate?: unknown): string => {
  const isObject = typeof value === "object" && value !== null && !Array.isArray(value)
  const params = value === undefined ? undefined : isObject ? { ...value, Owner: owner } : [value]
  return JSON.stringify({ jsonrpc: "2.0", id, method, params, fate })
}

const remoteTarget = (call: RemoteTarget["call"]): RemoteTarget => ({
  call,
  held: Effect.map(call({ method: "PortMapper.ListPorts", value: {}, owner: "engine" }), (outcome) => ({
    listed: outcome._tag === "Answered" ? listedLines(outcome.answer) : [JSON.stringify(outcome)]
  }))
})

const listedLines = (answer: unknown): ReadonlyArray<string> =>
  ((answer as typeof ListPortsResponse.Encoded).Mappings ?? [])
    .map(({ Proto, FrontendIP, FrontendPort, BackendIP, BackendPort, Mode, State }) => {
      const { key } = addressOf(FrontendIP)
      const where =
        Mode === "routed" ? protocols[Proto] : frontendTextOf({ proto: Proto, key, port: FrontendPort })
      return `${where} -> ${endpointTextOf(BackendIP, BackendPort)} ${Mode} ${State}`
    })
    .sort()

interface RpcAnswer {
  readonly id?: unknown
  readonly result?: unknown
  readonly error?: { readonly code: number; readonly message: string }
}

type Fault = "request" | "notFound" | "driver"

const faults: ReadonlyMap<number, Fault> = new Map([
  [400, "request"],
  [404, "notFound"],
  [500, "driver"]
])

/** The error code alone does not distinguish invalid params from an invalid request; what was sent does. */
const rpcFaults: ReadonlyMap<number, Fault> = new Map([
  [-32600, "request"],
  [-32602, "request"],
  [-32601, "notFound"],
  [-32000, "driver"]
])

const jsonOf = (text: string): unknown => Result.getOrUndefined(Result.try(() => JSON.parse(text) as unknown))

const textOf = (value: unknown, name: string): string | undefined => {
  const text =
    typeof value === "object" && value !== null ? (value as Record<string, unknown>)[name] : undefined
  return typeof text === "string" ? text : undefined
}
