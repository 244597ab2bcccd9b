/**
 * Whether a rule matches a packet of which not everything is known: it comes from somewhere, from some port, at a usual
 * rate. `rarely`: packets like it match if they are special (of one source, over a limit); `mostly`: all but those.
 * `unknown`: the rule asks what can't be told from here, and such rules are about special packets.
 */
export type Match = "yes" | "mostly" | "rarely" | "no" | "unknown"

export const not = (match: Match): Match =>
  (({ yes: "no", mostly: "rarely", rarely: "mostly", no: "yes", unknown: "unknown" }) as const)[match]

export const is = (holds: boolean): Match => (holds ? "yes" : "no")

/** Whether an ordinary packet matches. */
export const matches = (match: Match): boolean => match === "yes" || match === "mostly"

const weakest = ["no", "unknown", "rarely", "mostly", "yes"] as const

/** All of them. */
export const every = (all: ReadonlyArray<Match>): Match => weakest.find((weak) => all.includes(weak)) ?? "yes"

/** One of them. */
export const some = (all: ReadonlyArray<Match>): Match =>
  weakest.findLast((strong) => all.includes(strong)) ?? "no"
