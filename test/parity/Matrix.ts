/**
 * Rows of what users do with published ports, tried with payloads on two sides: the reference (stock `-p`, or CNI's
 * `portmap`) and ours. Ours is asserted to be as wanted in every row, so it is behind in none; the reference is
 * asserted, too, so that each row says what it really compares. Where both are reached, the container sees the same
 * client.
 */
import { assert } from "@effect/vitest"
import { Effect, type Scope } from "effect"
import type { Agent } from "../lab/Agent.ts"
import { silenceMillis } from "../lab/patience.ts"

/** What a client got: an echo of its payload, the refusal of a closed port, or nothing. */
export type Seen = "reached" | "refused" | "silence"

export interface Cell {
  readonly seen: Seen
  /** Such as the client's address as the container saw it. */
  readonly note: string
}

/** One side: who published, and where. `World` is what the rows of a file share. */
export interface Row<World, Side> {
  /** A number of the list of reports, or what else it belongs to. */
  readonly report: string
  readonly what: string
  readonly wanted: ReadonlyArray<Seen>
  /** What the reference does, where that is not what is wanted. */
  readonly reference?: ReadonlyArray<Seen>
  /** Ours comes by the relay and the reference does not: the container sees another address of the host. */
  readonly isRelayed?: boolean
  /** Done once, before both sides are asked. */
  readonly before?: (world: World) => Effect.Effect<unknown, unknown, Scope.Scope>
  readonly look: (world: World, side: Side) => Effect.Effect<Cell, unknown, Scope.Scope>
}

export const both = ["tcp", "udp"] as const
export const closed: ReadonlyArray<Seen> = ["refused", "silence"]
export const reached: ReadonlyArray<Seen> = ["reached"]

export interface Asked {
  readonly host: string
  readonly port: number
  readonly protocol?: "tcp" | "udp"
  readonly source?: string
  readonly sourcePort?: number
  /** Whether an answer is expected; else silence is waited for only briefly. */
  readonly isWanted?: boolean
}

const payload = "there and back"

/** Sends a payload, and checks that it came back unchanged, from this container. */
export const ask = (
  from: { readonly agent: Agent },
  who: string,
  { host, port, protocol = "tcp", source, sourcePort, isWanted = true }: Asked
): Effect.Effect<Cell, unknown> => {
  const request = {
    ...{ host, port, payload },
    ...(source === undefined ? {} : { sourceAddress: source }),
    ...(sourcePort === undefined ? {} : { sourcePort }),
    ...(isWanted ? {} : { timeoutMillis: silenceMillis })
  }
  const exchange =
    protocol === "tcp"
      ? Effect.map(from.agent.tcp({ ...request, close: "reset" }), ({ outcome, answer }) => ({
          outcome,
          answer
        }))
      : Effect.map(from.agent.udp(request), ({ outcome, replies }) => ({ outcome, answer: replies[0] }))
  return Effect.map(exchange, ({ outcome, answer }): Cell => {
    if (outcome === "answered") {
      assert.deepStrictEqual([answer?.who, answer?.payload], [who, payload], `${host}:${port}/${protocol}`)
      return { seen: "reached", note: `sees ${answer?.seen?.address}` }
    }
    // A relay accepts a connection before the backend refuses it.
    const isRefused = outcome === "refused" || outcome === "reset" || outcome === "closed"
    return { seen: isRefused ? "refused" : "silence", note: "" }
  })
}

/** Tries every row on both sides, prints the table, and asserts it. */
export const compare = Effect.fnUntraced(function* <World, Side>(
  title: string,
  world: World,
  rows: ReadonlyArray<Row<World, Side>>,
  sides: { readonly reference: Side; readonly ours: Side }
) {
  const lines: Array<readonly [string, string, string, string]> = []
  const wrong: Array<string> = []
  for (const { report, what, wanted, reference = wanted, isRelayed, before, look } of rows) {
    if (before !== undefined) yield* before(world)
    const theirs = yield* look(world, sides.reference)
    const ours = yield* look(world, sides.ours)
    lines.push([report, what, cellText(theirs), cellText(ours)])
    if (!reference.includes(theirs.seen))
      wrong.push(`${what}: the reference has ${theirs.seen}, not ${reference}`)
    if (theirs.seen === ours.seen && theirs.note !== ours.note && isRelayed !== true)
      wrong.push(`${what}: the reference ${theirs.note}, ours ${ours.note}`)
    if (!wanted.includes(ours.seen)) wrong.push(`${what}: ours has ${ours.seen}, not ${wanted}`)
  }
  console.log(tableText([["report", title, "reference", "ours"], ...lines]))
  assert.deepStrictEqual(wrong, [])
})

const cellText = ({ seen, note }: Cell): string => (note === "" ? seen : `${seen}, ${note}`)

const tableText = (lines: ReadonlyArray<ReadonlyArray<string>>): string => {
  const widths = [0, 1, 2, 3].map((column) => Math.max(...lines.map((line) => line[column]?.length ?? 0)))
  return lines
    .map((line) =>
      line
        .map((text, column) => text.padEnd(widths[column] ?? 0))
        .join("  ")
        .trimEnd()
    )
    .join("\n")
}
