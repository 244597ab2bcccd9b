/** A host's allocator that gives out what the ledger covers, and tells the ledger what the host has reserved. */
import { Clock, Effect, Queue } from "effect"
import type {
  Claimant,
  ClusterUnavailable,
  Hold,
  PortAllocated,
  PortAllocator,
  PortError
} from "../ports/PortAllocator.ts"
import type { Frontend } from "../ports/PortTable.ts"
import { isLoopback } from "../protocol/Address.ts"
import { frontendText, type PortRequest } from "../protocol/PortBinding.ts"
import { excluderHere, leaseMayHaveEnded, type Member, mayGrantBy, whyNot } from "./Member.ts"
import { allocatedTo, unavailable } from "./PortClaiming.ts"

type Allocator = PortAllocator["Service"]

export const clusterAllocator = (member: Member, host: Allocator): Allocator => {
  const { ledger } = member
  const reserved = new Set<Hold>()

  const noted = <E>(holding: Effect.Effect<ReadonlyArray<Hold>, E>, claimant: Claimant | undefined) =>
    Effect.map(holding, (holds) => {
      for (const hold of holds) {
        reserved.add(hold)
        const { protocol, port, host: at } = hold
        ledger.reserve({ protocol, port, claimant: isLoopback(at) ? undefined : claimant })
      }
      return holds
    })

  const release: Allocator["release"] = (holds) =>
    Effect.map(host.release(holds), () => {
      for (const hold of holds) if (reserved.delete(hold)) ledger.release(hold)
    })

  /** The lease may have ended meanwhile, and with it the claim. What is kept is claimed again, or withdrawn. */
  const covered = (
    holds: ReadonlyArray<Hold>,
    claimant: Claimant,
    lost: (() => ClusterUnavailable) | undefined
  ): Effect.Effect<ReadonlyArray<Hold>, ClusterUnavailable> => {
    const uncovered = holds.filter(
      ({ protocol, port, host: at }) => !isLoopback(at) && !ledger.covers({ protocol, port, claimant })
    )
    if (uncovered.length === 0) return Effect.succeed(holds)
    if (lost !== undefined) return Effect.andThen(release(holds), Effect.fail(lost()))
    for (const { protocol, port } of uncovered) ledger.add({ protocol, port, claimant }, undefined)
    return Effect.as(Queue.offer(member.doubt, undefined), holds)
  }

  return {
    gives: host.gives,
    reserve: (frontends, ports, beside, options = {}) => {
      const { claimant, isKept = false, except = [] } = options
      const outer = frontends.filter((each) => !isLoopback(each.host))
      if (claimant === undefined || outer.length === 0)
        return noted(host.reserve(frontends, ports, beside, options), undefined)
      return Clock.clockWith((clock): Effect.Effect<ReadonlyArray<Hold>, PortError> => {
        const refused = refusal(member, outer, ports, claimant)
        if (refused !== undefined) return Effect.fail(refused)
        if (!isKept && !mayGrantBy(clock, member))
          return Effect.fail(unavailable(outer[0], ports, whyNot(member)))
        const protocols = outer.map(({ protocol }) => protocol)
        const outside = ports._tag === "Exact" ? [] : [ledger.outside(ports._tag, protocols)]
        return Effect.flatMap(
          noted(host.reserve(frontends, ports, beside, { except: [...except, ...outside] }), claimant),
          (holds) =>
            covered(
              holds,
              claimant,
              isKept ? undefined : () => unavailable(outer[0], ports, leaseMayHaveEnded)
            )
        )
      })
    },
    release
  }
}

/** Why an exact port may not be reserved, if the ledger doesn't cover it. */
const refusal = (
  member: Member,
  frontends: ReadonlyArray<Frontend>,
  ports: PortRequest,
  claimant: Claimant
): PortAllocated | ClusterUnavailable | undefined => {
  if (ports._tag !== "Exact") return undefined
  const { port } = ports
  const refused = frontends.find(({ protocol }) => !member.ledger.covers({ protocol, port, claimant }))
  if (refused === undefined) return undefined
  const { protocol, host } = refused
  const held = excluderHere(member, { protocol, port, claimant })
  return held === undefined
    ? unavailable(refused, ports, whyNot(member))
    : allocatedTo(frontendText({ protocol, host, port }), held)
}
