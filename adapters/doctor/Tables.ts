/** Tables of whatever tool in one shape: what decides about a packet, and the words that name it to its owner. */
import type { Answer } from "./Match.ts"
import type { Hook, Packet } from "./Packet.ts"

export type Tool = "nft" | "iptables-nft" | "iptables-legacy"

export interface Table {
  readonly tool: Tool
  readonly family: "ip" | "ip6" | "inet"
  readonly name: string
  readonly chains: ReadonlyMap<string, Chain>
}

export interface Chain {
  readonly name: string
  readonly base: Base | undefined
  readonly rules: ReadonlyArray<Rule>
}

export interface Base {
  readonly hook: Hook
  readonly priority: number
  readonly policy: "accept" | "drop"
}

export interface Rule {
  /** As its tool lists it. */
  readonly text: string
  readonly steps: ReadonlyArray<Step>
}

/** The parts of a rule, from left to right; one that does not match ends it. */
export type Step =
  | { readonly _tag: "Match"; readonly test: (packet: Packet) => Answer }
  | { readonly _tag: "Decide"; readonly verdict: Verdict }
  /** A verdict for each value; the first whose test matches counts. */
  | {
      readonly _tag: "Choose"
      readonly cases: ReadonlyArray<{ readonly test: (packet: Packet) => Answer; readonly verdict: Verdict }>
    }
  | { readonly _tag: "Mark"; readonly mark: (packet: Packet) => number | undefined }

export type Verdict =
  | { readonly _tag: "Accept" | "Drop" | "Return" }
  | { readonly _tag: "Jump" | "Goto"; readonly chain: string }

/** `ip filter (iptables-nft)`. */
export const tableText = ({ family, name, tool }: Pick<Table, "family" | "name" | "tool">): string =>
  `${family} ${name} (${tool})`
