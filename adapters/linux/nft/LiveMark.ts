/**
 * The mark that an earlier process has the table put on packets. An Engine answered with it lets nothing else through,
 * so it stays on what is redirected as long as anything is, whatever mark the present process was given.
 */
import { Result, Schema } from "effect"
import type { FirewallError } from "../../../src/firewall/Firewall.ts"
import type { Netlink } from "../netlink/Netlink.ts"
import { tableErrors } from "./NftErrors.ts"
import { readElements, readTable } from "./NftMessages.ts"
import { type AcceptMark, markText } from "./Ruleset.ts"
import { ruleSets } from "./TableSets.ts"

/** No packet can carry both marks. */
export class MarkConflict extends Schema.TaggedError<MarkConflict>()("MarkConflict", {
  given: Schema.String,
  live: Schema.String
}) {
  override get message(): string {
    return `the mark ${this.given} contradicts ${this.live}, which published ports rest on: give --accept-fwmark ${this.live} until they are unmapped`
  }
}

/** `undefined` if the table marks nothing, or redirects nothing. */
export const liveMark = (
  netlink: Netlink,
  table: string
): Result.Result<AcceptMark | undefined, FirewallError> => {
  const { failedBy } = tableErrors(table)
  const found = readTable(netlink, table)
  if (Result.isFailure(found)) return Result.fail(failedBy("reading", found.failure))
  const [, mark, mask] = /; mark (0x[0-9a-f]+)(?:\/(0x[0-9a-f]+))?$/.exec(found.success?.comment ?? "") ?? []
  if (mark === undefined) return Result.succeed(undefined)
  for (const set of ruleSets) {
    if (set.kind !== "redirect") continue
    const elements = readElements(netlink, table, set)
    if (Result.isFailure(elements)) return Result.fail(failedBy("reading", elements.failure))
    if (elements.success.length > 0)
      return Result.succeed({ mark: Number(mark), mask: mask === undefined ? 0xffffffff : Number(mask) })
  }
  return Result.succeed(undefined)
}

/** One mark with the bits of both. */
export const joinMarks = (
  given: AcceptMark | undefined,
  live: AcceptMark | undefined
): Result.Result<AcceptMark | undefined, MarkConflict> => {
  if (given === undefined || live === undefined) return Result.succeed(given ?? live)
  return ((given.mark ^ live.mark) & given.mask & live.mask) === 0
    ? Result.succeed({ mark: (given.mark | live.mark) >>> 0, mask: (given.mask | live.mask) >>> 0 })
    : Result.fail(new MarkConflict({ given: markText(given), live: markText(live) }))
}
