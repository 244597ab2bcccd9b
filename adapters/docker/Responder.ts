/** One call and its answer on any transport: run it, deliver the answer, interrupt it when the client disconnects. */
import type * as Net from "node:net"
import { Context, Data, Effect, Exit } from "effect"
import { CurrentOwner, type Driver } from "../../src/protocol/Driver.ts"
import { type CallError, call, failureOf, textBody } from "../../src/protocol/Operations.ts"
import { answerText, type CallRoute, type Refusal, refusedAs } from "./Routes.ts"

/** The client disconnected before it read the answer. */
export class Undelivered extends Data.TaggedError("Undelivered") {}

export interface Responder {
  readonly connection: Net.Socket
  /** Succeeds once the kernel has taken the whole answer; fails if the client disconnects before that. */
  readonly deliver: (text: string) => Effect.Effect<void, Undelivered>
  /** Whether an answer can still be sent: none was sent yet, and the client is connected. */
  readonly open: () => boolean
  readonly refuse: (refusal: Refusal) => void
  /** Called when the client disconnects before it gets its answer. */
  readonly onGone: (gone: () => void) => void
}

/** Starts a call; its scope is the delivery of its answer. `done` runs at the end, after success and failure alike. */
export const startCall = (
  services: Context.Context<Driver>,
  { method, owner }: Pick<CallRoute, "method" | "owner">,
  text: string,
  responder: Responder,
  done: () => void = () => {}
): void => {
  const answered = Effect.scoped(
    Effect.flatMap(call(method, textBody(text)), (answer) => responder.deliver(answerText(answer)))
  )
  start(Context.add(services, CurrentOwner, owner), answered, responder, done)
}

/** Starts an effect that sends its own answer; a disconnect interrupts it. Sends a failure if nothing was sent yet. */
export const start = (
  services: Context.Context<Driver>,
  answered: Effect.Effect<void, CallError | Undelivered, Driver>,
  responder: Omit<Responder, "deliver" | "connection">,
  done: () => void
): void => {
  const fiber = Effect.runForkWith(services)(answered)
  responder.onGone(() => fiber.interruptUnsafe())
  fiber.addObserver((exit: Exit.Exit<void, CallError | Undelivered>) => {
    if (Exit.isFailure(exit) && responder.open()) responder.refuse(refusedAs(failureOf(exit.cause)))
    done()
  })
}
