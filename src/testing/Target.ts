/**
 * What the harness drives: anything that answers the protocol's calls. A target over a transport only answers
 * calls; one in process also shows what it holds of its host, and lets a test change the world around it.
 */
import type { Effect } from "effect"
import type {
  ActivateResponse,
  MapPortsRequest,
  MapPortsResponse,
  PortBindingReq,
  WirePortBinding
} from "../protocol/Messages.ts"
import type { Method } from "../protocol/Operations.ts"

export type WireReq = typeof PortBindingReq.Encoded
export type WireBinding = typeof WirePortBinding.Encoded
export type WireMapRequest = typeof MapPortsRequest.Encoded
export type WireMapAnswer = typeof MapPortsResponse.Encoded
export type WireActivateAnswer = typeof ActivateResponse.Encoded

/** One call; `value` is the request as plain data, valid or not. */
export interface Call {
  readonly method: Method
  readonly value: unknown
  readonly owner: string
}

/**
 * What happens to a call on its way. `fail`, `interrupt` and `crash` strike at its `at`th step (from 1), if it
 * takes that many; `crash` ends the mapper's process there, and another one starts. `lose` lets the call return its
 * answer, and then loses the answer.
 */
export type Fate =
  | { readonly how: "fail" | "interrupt" | "crash"; readonly at: number }
  | { readonly how: "lose" }
  | undefined

/**
 * The outcome of a call. `Refused`: the answer was an error, the caller's fault or not. `Broken`: a defect, which
 * no request may ever cause. `Unanswered`: the caller was gone before the answer. `Hung`: it never ended.
 */
export type Outcome =
  | { readonly _tag: "Answered"; readonly answer: unknown }
  | { readonly _tag: "Refused"; readonly fault: "request" | "notFound" | "driver"; readonly text: string }
  | { readonly _tag: "Broken"; readonly text: string }
  | { readonly _tag: "Unanswered" }
  | { readonly _tag: "Hung" }

/**
 * An outcome, and whether the call's fate struck it: a call may end before the step it was to fail at. `lost`
 * numbers a call that returned an answer which was then lost: see `afterLoss`.
 */
export interface Ended {
  readonly outcome: Outcome
  readonly struck: boolean
  /** The step at which it was struck, if any: `Firewall.apply`. */
  readonly at?: string
  readonly lost?: number
  /** The process ended meanwhile. */
  readonly killed?: true
}

/** Everything a mapper holds of its host, as sorted lines. */
export interface HostHoldings {
  /** `0.0.0.0:8080/tcp`: bound sockets. */
  readonly sockets: ReadonlyArray<string>
  /** `Redirect 0.0.0.0:8080/tcp -> 172.17.0.2:80`: see `ruleText`. */
  readonly rules: ReadonlyArray<string>
  /** `0.0.0.0:8080/tcp -> 172.17.0.2:80 admits loopback`. */
  readonly routes: ReadonlyArray<string>
  /** `0.0.0.0:8080/tcp -> 172.17.0.2:80 nat answered`, `tcp -> 172.17.0.2:80 routed answered`: the record. */
  readonly stored: ReadonlyArray<string>
  /** `0.0.0.0:8080/tcp -> 172.17.0.2:80 nat live`: what the mapper lists. */
  readonly listed: ReadonlyArray<string>
}

/** A frontend that another process takes or frees. */
export interface Elsewhere {
  readonly proto: number
  readonly host: string
  readonly port: number
}

export type Refusable = "firewall" | "store"

/** The host around a mapper, as far as a harness may change it; `Done` is how: at once, or in its own time. */
export interface Surroundings<Done> {
  readonly take: (frontend: Elsewhere) => Done
  readonly free: (frontend: Elsewhere) => Done
  /**
   * The process dies, with its sockets and its relay; another one starts on the same record and kernel. Between the
   * two, another process takes `meanwhile`.
   */
  readonly restart: (meanwhile?: Elsewhere) => Done
}

/** What only in-memory services support. */
export interface Services<Done> extends Surroundings<Done> {
  /** Refuses every change, or stops refusing. */
  readonly refuse: (service: Refusable, on: boolean) => Done
  readonly wait: (seconds: number) => Done
}

/** The world around a mapper in process. */
export interface World extends Services<void> {
  readonly held: () => HostHoldings
}

/** One of several running calls; the harness decides which one proceeds. */
export interface Running {
  /** Whether it has stopped at a step, waiting to proceed. */
  readonly waits: () => boolean
  readonly proceed: () => void
  readonly interrupt: () => void
  readonly ended: () => Ended | undefined
  /** For a call whose answer is to be lost: the answer, once the mapper has returned it. */
  readonly given: () => unknown
}

/**
 * A target in process that runs only when the harness runs it: the same calls in the same order have the same
 * outcome.
 */
export interface SyncTarget {
  readonly call: (call: Call, fate: Fate) => Ended
  readonly start: (call: Call, lost?: boolean) => Running
  readonly world: World
}

/** A target over a transport: it answers in its own time. */
export interface RemoteTarget {
  readonly call: (call: Call) => Effect.Effect<Outcome>
  /** The visible part of what it holds. */
  readonly held: Effect.Effect<Partial<HostHoldings>>
  /** Present where the harness can change the host. */
  readonly host?: Surroundings<Effect.Effect<void>>
}
