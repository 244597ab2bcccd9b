/**
 * Whether a rule matches a packet that is only partly known: its source and source port are open, its rate is
 * ordinary. `rarely`: only special packets match (of one source, over a limit); `mostly`: all but those match.
 * `unknown`: the doctor can't evaluate the rule; such rules are about special packets.
 */
export type Match = "yes" | "mostly" | "rarely" | "no" | "unknown"

export const not = (match: Match): Match =>
  (({ yes: "no", mostly: "rarely", rarely: "mostly", no: "yes", unknown: "unknown" }) as const)[match]

export const is = (holds: boolean): Match => (holds ? "yes" : "no")

/** Whether an ordinary packet matches. */
export const matches = (match: Match): boolean => match === "yes" || match === "mostly"

const weakest = ["no", "unknown", "rarely", "mostly", "yes"] as const

/** Whether all of them match. */
export const every = (all: ReadonlyArray<Match>): Match => weakest.find((weak) => all.includes(weak)) ?? "yes"

/** Whether one of them matches. */
export const some = (all: ReadonlyArray<Match>): Match =>
  weakest.findLast((strong) => all.includes(strong)) ?? "no"
