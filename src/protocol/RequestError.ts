/**
 * A request that is wrong in itself, whatever the state of the host: it never reaches a driver and changes nothing.
 */
import { Schema } from "effect"

/** `path` as in `Reqs[1].FrontendPort`, `""` for the whole; `value` as JSON text, shortened; `rule` what it should be. */
export const Issue = Schema.Struct({ path: Schema.String, value: Schema.String, rule: Schema.String })
export type Issue = typeof Issue.Type

export class RequestError extends Schema.TaggedError<RequestError>()("RequestError", {
  issues: Schema.Array(Issue)
}) {
  override get message(): string {
    return `bad request: ${this.issues.map(issueText).join("; ")}`
  }
}

export const issueText = ({ path, value, rule }: Issue): string =>
  [path, value].filter((part) => part !== "").join(" = ") + (path === "" && value === "" ? rule : `: ${rule}`)
