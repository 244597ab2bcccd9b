/**
 * The mapper in this very process, for where no plugin is running: it has the state under its lock for the length of one
 * command, restores what is recorded, and leaves what it publishes to the kernel's table. Everything heavy is imported here.
 *
 * Nothing of it lives on, so nothing that takes a process is published: mode `nat` alone, no relay. The ports are not held
 * by a socket once the process is gone, until a `serve` restores them from the record.
 */
import { type Duration, Effect, Exit, Layer, ManagedRuntime, References } from "effect"
import { CurrentOwner } from "../../src/protocol/Driver.ts"
import { failureOf } from "../../src/protocol/Operations.ts"
import { mapperLayer } from "../cli/layers.ts"
import { loggingLayer } from "../cli/logging.ts"
import * as InMemory from "../memory/InMemory.ts"
import type { Method, RefusalKind } from "./Caller.ts"

/**
 * `Busy`: another process has the state, or the kernel's table. `Failed`: ports can't be published from here at all. Plain
 * data, since what this module throws the executable would not know: they are bundled apart.
 */
export type Opened =
  | { readonly _tag: "Busy" | "Failed"; readonly why: string }
  | {
      readonly _tag: "Open"
      readonly call: (method: Method, request: object, owner: string) => Promise<Answered>
      readonly close: () => Promise<void>
    }

export type Answered =
  | { readonly _tag: "Answer"; readonly value: unknown }
  | { readonly _tag: "Refused"; readonly kind: RefusalKind; readonly message: string }

/** Waits so long for its turn on the state. */
export const openStandalone = async (stateDirectory: string, wait: Duration.Input): Promise<Opened> => {
  const runtime = ManagedRuntime.make(
    mapperLayer({
      stateDirectory,
      mode: "nat",
      ephemeral: undefined,
      acceptMark: undefined,
      udpIdle: undefined,
      transient: { wait }
    }).pipe(
      Layer.provide(loggingLayer("logfmt")),
      Layer.provideMerge(Layer.succeed(References.MinimumLogLevel, "Warn"))
    )
  )
  const opened = await Effect.runPromise(Effect.result(runtime.contextEffect))
  if (opened._tag === "Failure") {
    await runtime.dispose()
    const { _tag, message } = opened.failure
    return { _tag: _tag === "StateLocked" || _tag === "NamespaceBusy" ? "Busy" : "Failed", why: message }
  }
  return {
    _tag: "Open",
    call: async (method, request, owner) => {
      const exit = await runtime.runPromiseExit(
        Effect.provideService(
          InMemory.callText(`PortMapper.${method}`, JSON.stringify(request)),
          CurrentOwner,
          owner
        )
      )
      if (Exit.isSuccess(exit)) return { _tag: "Answer", value: JSON.parse(exit.value) }
      const { kind, message } = failureOf(exit.cause)
      return { _tag: "Refused", kind, message }
    },
    close: () => runtime.dispose()
  }
}
