/**
 * Tables of every tool in one shape: rules as the statements of nft's JSON (libnftables-json(5)), with the text by
 * which the tool's user knows each.
 */
import type { Hook } from "./Packet.ts"

export type Tool = "nft" | "iptables-nft" | "iptables-legacy"

export type Json = Readonly<Record<string, unknown>>

/** The elements of a named set or map. */
export type Sets = (name: string) => ReadonlyArray<unknown> | undefined

export interface Table {
  readonly tool: Tool
  readonly family: "ip" | "ip6" | "inet"
  readonly name: string
  readonly chains: ReadonlyMap<string, Chain>
  readonly sets: Sets
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
  /** Evaluated from left to right; one that does not match ends the rule. */
  readonly statements: ReadonlyArray<Json>
}

/** `ip filter (iptables-nft)`. */
export const tableText = ({ family, name, tool }: Pick<Table, "family" | "name" | "tool">): string =>
  `${family} ${name} (${tool})`

const hooks: ReadonlySet<unknown> = new Set<Hook>(["prerouting", "input", "forward", "output", "postrouting"])

export const isHook = (text: unknown): text is Hook => hooks.has(text)

/** A value that is not an object has no fields. */
export const record = (value: unknown): Json =>
  typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Json) : {}

export const list = (value: unknown): ReadonlyArray<unknown> => (Array.isArray(value) ? value : [])
