// biome-ignore-all lint/style/noNonNullAssertion: every number of a budget has its place
/**
 * How many descriptors the relay may take: what the process may have, less what is not the relay's, less a reserve for
 * control. What is left is shared by rule: nobody may hold more than `shareOfRest` times what is left for others, so a
 * flooded port leaves a part to each port that comes after it.
 *
 * Descriptors are counted in a table that all threads share, as they are taken and given back. What is not the relay's is
 * measured anew when something is asked for, at most four times a second.
 */
import { controlReserve, descriptorLimit, descriptorsInUse } from "../../node/Descriptors.ts"
import { budgetOf } from "../ThreadMessages.ts"
import { budget, report } from "./ThreadData.ts"

const shareOfRest = 2
const measureMillis = 250
/** The lack of descriptors is over once nothing was refused for so long. */
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

/** Whether somebody who holds so many descriptors may take this many more. */
export const mayTake = (held: number, wanted: number, now: number): boolean => {
  if (now - measured >= measureMillis) measure(now)
  const left = Atomics.load(budget, budgetOf.available) - Atomics.load(budget, budgetOf.taken)
  return left >= wanted && held + wanted <= shareOfRest * left
}

/** The same for a port that each thread serves for itself, about as often as the others do. */
export const mayTakeInEachThread = (held: number, wanted: number, now: number): boolean =>
  mayTake(held * budget[budgetOf.threads]!, wanted, now)

const measure = (now: number): void => {
  measured = now
  const limit = descriptorLimit()
  const others = descriptorsInUse() - Atomics.load(budget, budgetOf.taken)
  // Where mappings alone have nearly all, what is left is for both.
  const reserve = Math.min(controlReserve(limit), (limit - others) >> 1)
  Atomics.store(budget, budgetOf.available, limit - others - reserve)
}

/** Counts what found no descriptor; `which` is one of `budgetOf`. The first of a while is reported. */
export const refuse = (which: typeof budgetOf.refusedTcp | typeof budgetOf.refusedUdp, now: number): void => {
  Atomics.add(budget, which, 1)
  lastRefusal = now
  if (lacking) return
  lacking = true
  report({ _tag: "Descriptors", lacking })
}

export const isLacking = (): boolean => lacking

/** Reports that descriptors do not lack any more, if that is so. */
export const endLack = (now: number): void => {
  if (!lacking || now - lastRefusal < calmMillis) return
  lacking = false
  report({ _tag: "Descriptors", lacking })
}

/** Whether descriptors were given back since this was asked last. */
export const hasGivenBack = (): boolean => {
  const before = gaveBack
  gaveBack = false
  return before
}
