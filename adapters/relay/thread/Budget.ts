// biome-ignore-all lint/style/noNonNullAssertion: every number of a budget has its place
/**
 * How many descriptors the relay may take: the process's limit, less those that are not the relay's, less a reserve
 * for control. A rule shares the rest: no port may hold more than `shareOfRest` times what is left for others, so a
 * flooded port leaves a part to each port that comes after it.
 *
 * A table that all threads share counts descriptors as they are taken and returned. Those that are not the relay's
 * are counted again on demand, at most four times a second.
 */
import { controlReserve, descriptorLimit, descriptorsInUse } from "../../node/Descriptors.ts"
import { budgetOf } from "../ThreadMessages.ts"
import { budget, report } from "./ThreadData.ts"

const shareOfRest = 2
const measureMillis = 250
/** The lack of descriptors is over once nothing was refused for this long. */
const calmMillis = 5000

let measured = Number.NEGATIVE_INFINITY
let lacking = false
let lastRefusal = 0
let gaveBack = false

export const take = (): void => void Atomics.add(budget, budgetOf.taken, 1)

export const giveBack = (): void => {
  Atomics.sub(budget, budgetOf.taken, 1)
  gaveBack = true
}

/** Whether a holder of `held` descriptors may take `wanted` more. */
export const mayTake = (held: number, wanted: number, now: number): boolean => {
  if (now - measured >= measureMillis) measure(now)
  const left = Atomics.load(budget, budgetOf.available) - Atomics.load(budget, budgetOf.taken)
  return left >= wanted && held + wanted <= shareOfRest * left
}

/** The same for a port that every thread serves: assumes that the others hold about as many. */
export const mayTakeInEachThread = (held: number, wanted: number, now: number): boolean =>
  mayTake(held * budget[budgetOf.threads]!, wanted, now)

const measure = (now: number): void => {
  measured = now
  const limit = descriptorLimit()
  const others = descriptorsInUse() - Atomics.load(budget, budgetOf.taken)
  // If mappings alone use nearly all descriptors, relay and control share the rest.
  const reserve = Math.min(controlReserve(limit), (limit - others) >> 1)
  Atomics.store(budget, budgetOf.available, limit - others - reserve)
}

/**
 * Counts a refusal for lack of descriptors; `which` is one of `budgetOf`. Reports the first one of a period of
 * lack.
 */
export const refuse = (which: typeof budgetOf.refusedTcp | typeof budgetOf.refusedUdp, now: number): void => {
  Atomics.add(budget, which, 1)
  lastRefusal = now
  if (lacking) return
  lacking = true
  report({ _tag: "Descriptors", lacking })
}

export const isLacking = (): boolean => lacking

/** Reports that descriptors are available again, if so. */
export const endLack = (now: number): void => {
  if (!lacking || now - lastRefusal < calmMillis) return
  lacking = false
  report({ _tag: "Descriptors", lacking })
}

/** Whether descriptors were returned since the last call. */
export const hasGivenBack = (): boolean => {
  const before = gaveBack
  gaveBack = false
  return before
}
