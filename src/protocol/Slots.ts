/**
 * How a service spreads new connections over its backends: each backend has some of the service's slots, and the
 * kernel and the relay pick a slot for a connection. A change moves no more slots than an even spread requires, so
 * the other slots keep their backend: the minimal disruption of Maglev (Eisenbud et al., NSDI 2016). Maglev computes
 * its table from the backends' names alone and disrupts slightly more; here the spread is recorded, so the current
 * one is known.
 */

/** How a service picks the slot of a new connection: at random, or by the client's address. */
export type Balance = "random" | "source"

/** The part of one backend in a service. */
export interface SlotShare {
  readonly balance: Balance
  /** The number of the service's slots. */
  readonly size: Size
  /** Those of this backend, in ascending order; none while it takes no new connections. */
  readonly slots: ReadonlyArray<number>
  /** No backend of the service takes connections, so nothing is redirected: all of it reaches the relay. */
  readonly idle?: true | undefined
}

/** Whether a redirection or a route leads no new connection to its backend: by itself, or since it has no slots. */
export const isIdle = ({
  idle,
  share
}: {
  readonly idle?: true | undefined
  readonly share?: SlotShare | undefined
}): boolean => idle === true || share?.slots.length === 0

/** The numbers of slots that a service may have; each is a multiple of the one before it. */
export const sizes = [64, 1024] as const
export type Size = (typeof sizes)[number]

/** The most backends of one service. */
export const maxMembers = 1024

/** Four slots a backend at least, so that none gets a third more than another; a single one at the very end. */
export const sizeFor = (members: number, current: Size): Size =>
  current === 1024 || members > 16 ? 1024 : 64

/**
 * The same spread over a larger number of slots: a source that hashes to a slot keeps its backend, since the kernel
 * scales a hash to the number of slots.
 */
export const widened = (slots: ReadonlyArray<number>, from: Size, to: Size): ReadonlyArray<number> =>
  from === to
    ? slots
    : slots.flatMap((slot) => Array.from({ length: to / from }, (_, part) => slot * (to / from) + part))

/**
 * Spreads all slots over the members, as evenly as possible. `current`: what each member has, or had and would like
 * back; where two claim a slot, the earlier member has it. What was taken over from a member that comes back is
 * the first to be given up, so that all have their slots from before. Returns the slots of each member, in ascending
 * order.
 */
export const spread = (
  size: Size,
  current: ReadonlyArray<ReadonlyArray<number>>
): ReadonlyArray<ReadonlyArray<number>> => {
  if (current.length === 0) return []
  const owner = new Int32Array(size).fill(-1)
  const counts = current.map(() => 0)
  for (const [member, slots] of current.entries())
    for (const slot of slots)
      if (owner[slot] === -1) {
        owner[slot] = member
        counts[member] = (counts[member] ?? 0) + 1
      }
  const quotas = quotasOf(size, undisputed(current))
  const give = (slot: number, to: number) => {
    const from = owner[slot] ?? -1
    if (from !== -1) counts[from] = (counts[from] ?? 0) - 1
    owner[slot] = to
    counts[to] = (counts[to] ?? 0) + 1
  }
  const lacks = (member: number) => (counts[member] ?? 0) < (quotas[member] ?? 0)
  const mayTake = (slot: number) => {
    const from = owner[slot]
    if (from === undefined) return false
    return from === -1 || (counts[from] ?? 0) > (quotas[from] ?? 0)
  }
  for (const [member, slots] of current.entries())
    for (const slot of slots) if (owner[slot] !== member && lacks(member) && mayTake(slot)) give(slot, member)
  let slot = 0
  for (const member of current.keys()) for (; lacks(member); slot++) if (mayTake(slot)) give(slot, member)
  const spreadSlots: Array<Array<number>> = current.map(() => [])
  for (const [at, member] of owner.entries()) spreadSlots[member]?.push(at)
  return spreadSlots
}

/** How many of its slots each member would keep if later members got what they claim. */
const undisputed = (current: ReadonlyArray<ReadonlyArray<number>>): ReadonlyArray<number> => {
  const last = new Map(current.flatMap((slots, member) => slots.map((slot) => [slot, member] as const)))
  return current.map((slots, member) => slots.filter((slot) => last.get(slot) === member).length)
}

/** How many slots each member is to have: those with the most get the remainder. */
const quotasOf = (size: number, counts: ReadonlyArray<number>): ReadonlyArray<number> => {
  const quota = Math.floor(size / counts.length)
  const extra = size - quota * counts.length
  const byCount = [...counts.keys()].sort((a, b) => (counts[b] ?? 0) - (counts[a] ?? 0) || a - b)
  const larger = new Set(byCount.slice(0, extra))
  return counts.map((_, member) => quota + (larger.has(member) ? 1 : 0))
}

/** `0-21,40`: ascending slots as ranges. */
export const slotsText = (slots: ReadonlyArray<number>): string => {
  const ranges: Array<[number, number]> = []
  for (const slot of slots) {
    const last = ranges.at(-1)
    if (last !== undefined && last[1] === slot - 1) last[1] = slot
    else ranges.push([slot, slot])
  }
  return ranges.map(([first, last]) => (first === last ? `${first}` : `${first}-${last}`)).join(",")
}

/** The reverse of `slotsText`; `undefined` for another text. */
export const parseSlots = (text: string): ReadonlyArray<number> | undefined => {
  const slots: Array<number> = []
  if (text === "") return slots
  for (const part of text.split(",")) {
    const match = /^(\d{1,4})(?:-(\d{1,4}))?$/.exec(part)
    const [first, last] = [Number(match?.[1]), Number(match?.[2] ?? match?.[1])]
    if (!(first <= last && last < 1024 && first > (slots.at(-1) ?? -1))) return undefined
    for (let slot = first; slot <= last; slot++) slots.push(slot)
  }
  return slots
}
