/** What is between a simulated process and etcd: requests that are lost, late, or carried out twice, and a watch that lags. */
import { Duration, Effect, Stream } from "effect"
import { ClusterError, type Etcd, type LeaseId } from "../../cluster/Etcd.ts"
import type { Fault } from "../../cluster/MemoryEtcd.ts"
import { stepped } from "../../memory/Steps.ts"
import type { Random } from "../Random.ts"
import { purposeOf, type RequestFault } from "./Faults.ts"
import type { Process } from "./Schedule.ts"

export interface LinkOptions {
  readonly random: Random
  readonly process: Process
  /** Carries out what has arrived, whatever becomes of who sent it. */
  readonly outside: Process
  readonly etcd: Etcd["Service"]
  /** The next request of the host meets this. */
  readonly arm: (fault: Fault) => void
  readonly revoked: (lease: LeaseId) => void
  /** What strikes the request that has just passed its step, if anything does. */
  readonly struck: () => RequestFault | undefined
}

/** In milliseconds; more than a request waits for, and than most leases live. */
const longestDelay = 15_000

/** The connection of one process. Its requests pass the steps `Etcd.METHOD`, transactions with what they are for. */
export const makeLink = ({
  random,
  process,
  outside,
  etcd,
  arm,
  revoked,
  struck
}: LinkOptions): Etcd["Service"] => {
  const delay = () => Duration.millis(1 + random.below(random.chance(0.5) ? longestDelay : 1000))

  const faultOf = (fault: RequestFault | undefined): Fault => {
    switch (fault) {
      case "lose request":
        return { lose: "request" }
      case "lose reply":
        return { lose: "reply" }
      case "delay request":
        return { requestDelay: delay() }
      case "delay reply":
        return { replyDelay: delay() }
      default:
        return {}
    }
  }

  const pass = <A, E>(
    step: string,
    change: (fault: RequestFault | undefined) => Effect.Effect<A, E | ClusterError>
  ): Effect.Effect<A, E | ClusterError> =>
    stepped<A, E | ClusterError>(
      `Etcd.${step}`,
      ({ message: detail }) =>
        new ClusterError({ reason: "Refused", endpoint: undefined, detail, mayBeDone: false }),
      () => change(struck())
    )

  const armed = (fault: RequestFault | undefined) => Effect.sync(() => arm(faultOf(fault)))

  /** The connection is lost before the first reply; or something in between sends the request again. */
  const doubled = <A, E>(once: Effect.Effect<A, E>, again: Effect.Effect<A, E>): Effect.Effect<A, E> => {
    const later = Effect.andThen(Effect.sleep(delay()), again)
    return random.chance(0.5)
      ? Effect.andThen(Effect.exit(once), later)
      : Effect.tap(once, () => Effect.sync(() => outside.run(later)))
  }

  const send = <A, E>(step: string, request: Effect.Effect<A, E>): Effect.Effect<A, E | ClusterError> =>
    pass(step, (fault) => {
      const once = Effect.andThen(armed(fault), request)
      return process.ask(outside, fault === "double" ? doubled(once, request) : once)
    })

  const watched = (prefix: string, revision: number, fault: RequestFault | undefined) => {
    const batches = Stream.unwrap(Effect.as(armed(fault), etcd.watch(prefix, revision)))
    const lagging = Stream.tap(batches, () => (random.chance(0.05) ? Effect.sleep(delay()) : Effect.void))
    return Stream.unwrap(process.follow(outside, lagging))
  }

  return {
    transact: (transaction) => send(`transact ${purposeOf(transaction)}`, etcd.transact(transaction)),
    page: (prefix, options) => send("page", etcd.page(prefix, options)),
    watch: (prefix, revision) =>
      Stream.unwrap(Effect.map(pass("watch", Effect.succeed), (fault) => watched(prefix, revision, fault))),
    grant: (ttl) => send("grant", etcd.grant(ttl)),
    keepAlive: (lease) => send("keepAlive", etcd.keepAlive(lease)),
    revoke: (lease) =>
      send(
        "revoke",
        Effect.andThen(
          Effect.sync(() => revoked(lease)),
          etcd.revoke(lease)
        )
      ),
    leaseState: (lease) => send("leaseState", etcd.leaseState(lease)),
    counts: etcd.counts
  }
}
