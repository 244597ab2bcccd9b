/** A request that is invalid whatever the state of the host: it never reaches a driver and changes nothing. */
import { Schema } from "effect"
import { preview } from "./GoJson.ts"

/**
 * One thing that is wrong: `path` as in `Reqs[1].FrontendPort`, `""` for the whole request; `value` as JSON text,
 * shortened; `rule` what it must be, as a phrase that follows "must be". Where there is no value to show (`path`
 * and `value` are `""`: the text is not JSON), `rule` is the whole sentence. `text`, if there is one, says the same to
 * a person who wrote `-p` and no request; the error's message has it instead.
 */
export const Issue = Schema.Struct({
  path: Schema.String,
  value: Schema.String,
  rule: Schema.String,
  text: Schema.optionalKey(Schema.String)
})
export type Issue = typeof Issue.Type

/** What is wrong with the value of a label. */
export const labelIssue = (name: string, value: string, rule: string): Issue => ({
  path: `Labels[${preview(name)}]`,
  value: preview(value),
  rule
})

/** How many issues the message lists. */
const spelledOut = 8

/** The most issues that are collected and sent: a request with more was not mistyped. */
export const mostIssues = 100

export class RequestError extends Schema.TaggedError<RequestError>()("RequestError", {
  issues: Schema.Array(Issue)
}) {
  override get message(): string {
    const rest = this.issues.length - spelledOut
    return `bad request: ${this.issues.slice(0, spelledOut).map(issueText).join("; ")}${rest > 0 ? `; and ${rest} more` : ""}`
  }
}

/** `Reqs[1].FrontendPort = 65536: must be an integer from 0 to 65535` */
export const issueText = ({ path, value, rule, text }: Issue): string => {
  if (text !== undefined) return text
  if (path === "" && value === "") return rule
  return `${[path, value].filter((part) => part !== "").join(" = ")}: must be ${rule}`
}
