/**
 * Whether a rule matches a packet of which not everything is known: it comes from somewhere, from some port, at a usual
 * rate. `rarely`: packets like it match if they are special (of one source, over a limit); `mostly`: all but those.
 * `unknown`: the rule asks what can't be told from here, and such rules are about special packets.
 */
export type Answer = "yes" | "mostly" | "rarely" | "no" | "unknown"

export const not = (answer: Answer): Answer =>
  (({ yes: "no", mostly: "rarely", rarely: "mostly", no: "yes", unknown: "unknown" }) as const)[answer]

export const is = (holds: boolean): Answer => (holds ? "yes" : "no")

/** Whether an ordinary packet matches. */
export const matches = (answer: Answer): boolean => answer === "yes" || answer === "mostly"

const weakest = ["no", "unknown", "rarely", "mostly", "yes"] as const

/** All of them. */
export const every = (answers: ReadonlyArray<Answer>): Answer =>
  weakest.find((weak) => answers.includes(weak)) ?? "yes"

/** One of them. */
export const some = (answers: ReadonlyArray<Answer>): Answer =>
  weakest.findLast((strong) => answers.includes(strong)) ?? "no"
