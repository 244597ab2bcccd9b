/** The blocks of ephemeral ports that this host takes, so that a call for one needs no request. */
import { Effect } from "effect"
import type { PortRange } from "../protocol/PortRange.ts"
import { type Block, blockSizeFor, cellsOf, claimOf, freeBlock, lowWater, smallestBlock } from "./Cells.ts"
import type { CellState, Session } from "./ClusterState.ts"
import type { ClusterError, LeaseLost } from "./Etcd.ts"
import { claimIn, type Member } from "./Member.ts"

/** Where this host looks for blocks, and from which cell of the range on. */
export interface Hunting {
  readonly range: PortRange
  readonly from: number
}

export const isLow = ({ ledger }: Member): boolean => ledger.free < lowWater(ledger.usedOfBlocks)

/**
 * Takes blocks until there are enough free ports. Returns whether there are: not if no host could get any more in this
 * range.
 */
export const takeBlocks = (
  member: Member,
  session: Session,
  hunting: Hunting,
  isEnough: () => boolean
): Effect.Effect<boolean, ClusterError | LeaseLost> =>
  member.taking.withPermit(
    Effect.gen(function* () {
      while (!isEnough()) {
        const place = findPlace(member, hunting, blockSizeFor(member.ledger.usedOfBlocks))
        if (place === undefined) return false
        yield* Effect.catchTag(takeBlock(member, session, place, hunting), "NoRoom", () => Effect.void)
      }
      return true
    })
  )

interface Place {
  readonly cell: string
  readonly size: number
}

/** Beside blocks of its own, else in an empty cell, else anywhere; smaller ones where no such block is free. */
const findPlace = (
  { ledger, replica }: Member,
  { range, from }: Hunting,
  most: number
): Place | undefined => {
  const own = [...new Set(ledger.blocks().map(({ claim }) => claim.cell))]
  const all = cellsOf(range, from)
  for (let size = most; size >= smallestBlock; size /= 2) {
    const hasRoom = (cell: string) => freeBlock(cell, replica.cell(cell), size, range) !== undefined
    const cell =
      own.find(hasRoom) ?? all.find((one) => replica.isEmpty(one) && hasRoom(one)) ?? all.find(hasRoom)
    if (cell !== undefined) return { cell, size }
  }
  return undefined
}

const noRoom = { _tag: "NoRoom" } as const

const takeBlock = (member: Member, session: Session, { cell, size }: Place, { range }: Hunting) => {
  const { options, ledger } = member
  let block: Block | undefined
  const decide = (state: CellState) =>
    Effect.suspend(() => {
      block = freeBlock(cell, state, size, range)
      return block === undefined ? Effect.fail(noRoom) : Effect.succeed([claimOf(options.host, block)])
    })
  return claimIn(member, session, cell, decide, (claims) => {
    for (const held of claims) if (block !== undefined) ledger.addBlock(block, held)
  })
}
