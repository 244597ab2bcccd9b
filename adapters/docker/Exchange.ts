/** One call and its answer, whoever carries them: run, delivered, interrupted when its client goes, refused with its reason. */
import { Context, Data, Effect, Exit } from "effect"
import { CurrentOwner, type Driver } from "../../src/protocol/Driver.ts"
import { type CallError, call, failureOf, textBody } from "../../src/protocol/Operations.ts"
import { answerText, type CallRoute, type Refusal, refusedAs } from "./Routes.ts"

/** The client is gone, and never read the answer. */
export class Undelivered extends Data.TaggedError("Undelivered") {}

export interface Exchange {
  /** Succeeds once the system has taken the whole answer; fails when the client went before that. */
  readonly deliver: (text: string) => Effect.Effect<void, Undelivered>
  /** Whether an answer can still be sent: none was, and the client is there. */
  readonly open: () => boolean
  readonly refuse: (refusal: Refusal) => void
  /** Called when the client goes before it was answered. */
  readonly onGone: (gone: () => void) => void
}

/** Starts a call; its scope is the delivery of its answer. `done` runs when all is over, whatever came of it. */
export const startCall = (
  services: Context.Context<Driver>,
  { method, owner }: CallRoute,
  text: string,
  exchange: Exchange,
  done: () => void = () => {}
): void => {
  const answered = Effect.scoped(
    Effect.flatMap(call(method, textBody(text)), (answer) => exchange.deliver(answerText(answer)))
  )
  start(Context.add(services, CurrentOwner, owner), answered, exchange, done)
}

/** Starts what answers by itself; it is interrupted when its client goes, and a failure is told where nothing was yet. */
export const start = (
  services: Context.Context<Driver>,
  answered: Effect.Effect<void, CallError | Undelivered, Driver>,
  exchange: Omit<Exchange, "deliver">,
  done: () => void
): void => {
  const fiber = Effect.runForkWith(services)(answered)
  exchange.onGone(() => fiber.interruptUnsafe())
  fiber.addObserver((exit: Exit.Exit<void, CallError | Undelivered>) => {
    if (Exit.isFailure(exit) && exchange.open()) exchange.refuse(refusedAs(failureOf(exit.cause)))
    done()
  })
}
