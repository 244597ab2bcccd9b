/** What a fault does to a host that it strikes at a step. */
import { Duration, Effect } from "effect"
import { InjectedFailure } from "../../memory/Steps.ts"
import type { HostFault } from "./Faults.ts"
import type { Process } from "./Schedule.ts"
import type { SimulatedWorld } from "./World.ts"

/** Where a fault strikes. */
export interface Struck {
  readonly host: {
    disturbedMillis: number
    readonly kill: () => void
    readonly stop: (ending: "stay" | "leave" | "give back") => void
    readonly freeze: (millis: number, isSuspended: boolean) => void
    readonly cut: (millis: number) => void
  }
  readonly process: Process
  readonly step: string
}

export const strike = (
  { random, schedule, times, clocksGoBack, etcd }: SimulatedWorld,
  { host, process, step }: Struck,
  fault: HostFault
): Effect.Effect<void, InjectedFailure> => {
  const short = random.below(times.ttlMillis / 2)
  const long = times.ttlMillis + random.below(times.absenceMillis)
  const disturbed = Effect.sync(() => {
    host.disturbedMillis = schedule.nowMillis
  })
  // What does not hold up the step itself goes on with it, unless it ended the process.
  const then = (strikes: () => void) => Effect.andThen(Effect.sync(strikes), process.pause)
  switch (fault) {
    case "kill":
      return Effect.andThen(Effect.sync(host.kill), Effect.never)
    case "fail":
      return Effect.andThen(disturbed, Effect.fail(new InjectedFailure({ step })))
    case "stall":
      return Effect.andThen(
        disturbed,
        Effect.andThen(Effect.sleep(Duration.millis(1 + random.below(4000))), disturbed)
      )
    case "freeze":
      return then(() => host.freeze(short, false))
    case "suspend":
      return then(() => host.freeze(long, !clocksGoBack))
    case "cut":
      return then(() => host.cut(short))
    case "isolate":
      return then(() => host.cut(long))
    case "stop":
      return then(() => host.stop(random.pick(["leave", "give back"])))
    case "upgrade":
      return then(() => host.stop("stay"))
    case "clock":
      return then(() => {
        const millis = 1000 + random.below(random.chance(0.5) ? 10_000 : 3_600_000)
        process.ahead.millis += clocksGoBack && random.chance(0.5) ? -millis : millis
      })
    case "compact":
      return then(() => etcd.compact())
  }
}
