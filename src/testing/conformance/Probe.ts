/**
 * One check's calls to a plugin: it sends what an Engine sends, keeps every exchange, and unmaps whatever it was
 * granted. Backends are in the documentation ranges (RFC 5737, RFC 3849), which no real host uses.
 */
import { Effect, Result, Schema } from "effect"
import type { WireBinding, WireReq } from "../Target.ts"
import type { Exchange, NoAnswer, Wire, WireAnswer } from "./Wire.ts"

/** The check failed. */
export class Broken extends Schema.TaggedError<Broken>()("Broken", { why: Schema.String }) {}
/** The check can't be made with this plugin, or on this host. */
export class Skipped extends Schema.TaggedError<Skipped>()("Skipped", { why: Schema.String }) {}

export type Stop = Broken | Skipped | NoAnswer

/** The outcome of a MapPorts call, in whichever form the plugin answered. */
export type Mapped =
  | { readonly _tag: "Granted"; readonly bindings: ReadonlyArray<WireBinding>; readonly answer: WireAnswer }
  | { readonly _tag: "Refused"; readonly text: string; readonly answer: WireAnswer }

export const backend = (index: number): string => `192.0.2.${10 + (index % 200)}`
export const backend6 = (index: number): string => `2001:db8::${(10 + index).toString(16)}`

export class Probe {
  readonly exchanges: Array<Exchange> = []
  readonly #wire: Wire
  readonly #granted: Array<WireBinding> = []
  #nextPort: number

  constructor(wire: Wire, firstPort: number) {
    this.#wire = wire
    this.#nextPort = firstPort
  }

  /** A port that this run has not used yet. */
  port(): number {
    return this.#nextPort++
  }

  send(
    path: string,
    body: string,
    options: { readonly method?: string; readonly host?: string } = {}
  ): Effect.Effect<WireAnswer, NoAnswer> {
    const request = {
      method: options.method ?? "POST",
      path,
      headers: [
        ["Host", options.host ?? "plugin.moby.localhost"],
        ["User-Agent", "Go-http-client/1.1"],
        ["Accept", "application/vnd.docker.plugins.v1.2+json"]
      ] as const,
      body
    }
    return this.#wire.send(request).pipe(
      Effect.tap((answer) => Effect.sync(() => this.exchanges.push({ request, answer }))),
      Effect.tapError((error) =>
        Effect.sync(() => this.exchanges.push({ request, answer: { noAnswer: error.message } }))
      )
    )
  }

  /** `value` is sent as JSON, or as it is if it is JSON text. */
  map(value: unknown, options: { readonly host?: string } = {}): Effect.Effect<Mapped, NoAnswer> {
    const body = typeof value === "string" ? value : `${JSON.stringify(value)}\n`
    return this.send("/PortMapper.MapPorts", body, options).pipe(
      Effect.tapError(() => Effect.sync(() => void this.#granted.push(...perhapsGranted(body)))),
      Effect.map((answer): Mapped => {
        const read = json(answer.body)
        const error = errorOf(read)
        if (answer.status !== 200 || error !== "")
          return { _tag: "Refused", text: error === "" ? answer.body.trim() : error, answer }
        const listed = field(read, "PortBindings")
        const bindings = (Array.isArray(listed) ? listed : []) as ReadonlyArray<WireBinding>
        this.#granted.push(...bindings.filter((binding) => binding?.DiscardReq !== true))
        return { _tag: "Granted", bindings, answer }
      }),
      // Uninterruptible until the answer arrives: only bindings known to be granted can be unmapped.
      Effect.uninterruptible
    )
  }

  mapGroup(
    reqs: ReadonlyArray<WireReq>,
    labels: Readonly<Record<string, string>> | null = {}
  ): Effect.Effect<Mapped, NoAnswer> {
    return this.map({ Reqs: reqs, Labels: labels })
  }

  /** Maps; skips the check on a refusal, which another check reports. */
  grant(reqs: ReadonlyArray<WireReq>): Effect.Effect<ReadonlyArray<WireBinding>, Stop> {
    return Effect.flatMap(this.mapGroup(reqs), (mapped) => {
      if (mapped._tag === "Refused") return skip(`MapPorts was refused: ${mapped.text}`)
      return mapped.bindings.length === reqs.length && mapped.bindings.every(({ DiscardReq }) => !DiscardReq)
        ? Effect.succeed(mapped.bindings)
        : skip("MapPorts did not grant every entry")
    })
  }

  /** Unmaps like an Engine, which keeps the addresses and ports of what was granted. */
  unmap(bindings: ReadonlyArray<WireBinding>): Effect.Effect<WireAnswer, NoAnswer> {
    const kept = bindings.map((binding) => ({ ...binding, ...forgotten }))
    return Effect.suspend(() => {
      for (const binding of bindings) {
        const index = this.#granted.indexOf(binding)
        if (index !== -1) this.#granted.splice(index, 1)
      }
      return this.send("/PortMapper.UnmapPorts", `${JSON.stringify({ PortBindings: kept, Labels: {} })}\n`)
    }).pipe(Effect.uninterruptible)
  }

  /** Unmaps all that is left, binding by binding; not part of a check. */
  readonly takeBack: Effect.Effect<void> = Effect.suspend(() => {
    const kept = this.exchanges.length
    const left = this.#granted.splice(0).reverse()
    return Effect.forEach(left, (binding) => Effect.ignore(this.unmap([binding])), { discard: true }).pipe(
      Effect.andThen(Effect.sync(() => void this.exchanges.splice(kept)))
    )
  }).pipe(Effect.uninterruptible)
}

/** The fields of an answer that an Engine does not keep. */
const forgotten = { DiscardReq: false, AllowForwarding: false, NAT: null, Error: null } as const

/** What a request without an answer may have mapped, if it named a port. */
const perhapsGranted = (body: string): ReadonlyArray<WireBinding> => {
  const reqs = field(json(body), "Reqs")
  return (Array.isArray(reqs) ? (reqs as ReadonlyArray<WireReq>) : []).flatMap((req) => {
    const { FrontendPortEnd, ...asked } = req
    return asked.FrontendPort === FrontendPortEnd && FrontendPortEnd > 0 ? [{ ...asked, ...forgotten }] : []
  })
}

export const broken = (why: string): Effect.Effect<never, Broken> => Effect.fail(new Broken({ why }))
export const skip = (why: string): Effect.Effect<never, Skipped> => Effect.fail(new Skipped({ why }))
export const mustBe = (holds: boolean, why: string): Effect.Effect<void, Broken> =>
  holds ? Effect.void : broken(why)

export const entry = (
  frontendIp: string,
  backendIp: string,
  first: number,
  last = first,
  proto = 6
): WireReq => ({
  Proto: proto,
  BackendIP: backendIp,
  BackendPort: 80,
  FrontendIP: frontendIp,
  FrontendPort: first,
  FrontendPortEnd: last
})

/** The value of a JSON text; `undefined` where it is not JSON. */
export const json = (text: string): unknown =>
  Result.getOrUndefined(Result.try(() => JSON.parse(text) as unknown))

export const field = (value: unknown, name: string): unknown =>
  typeof value === "object" && value !== null ? (value as Record<string, unknown>)[name] : undefined

const errorOf = (value: unknown): string => {
  const text = field(value, "Err")
  return typeof text === "string" ? text : ""
}
