/** The black box: takes a raw request and returns status, headers and body. The caller supplies what carries it. */
import { type Effect, Schema } from "effect"

export interface WireRequest {
  readonly method: string
  readonly path: string
  /** Sent as they are, `Host` among them; the length of the body is added. */
  readonly headers: ReadonlyArray<readonly [name: string, value: string]>
  readonly body: string
}

export interface WireAnswer {
  readonly status: number
  /** Names in lower case. */
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
}

/** No answer came: the connection failed, broke or took too long. */
export class NoAnswer extends Schema.TaggedError<NoAnswer>()("NoAnswer", { detail: Schema.String }) {
  override get message(): string {
    return this.detail
  }
}

export interface Wire {
  /** Sends one request, bounded in time. */
  readonly send: (request: WireRequest) => Effect.Effect<WireAnswer, NoAnswer>
}

/** One request and its answer, as a report shows them. */
export interface Exchange {
  readonly request: WireRequest
  readonly answer: WireAnswer | { readonly noAnswer: string }
}

/** As sent: lines with `>` were sent, lines with `<` received. */
export const exchangeText = ({ request, answer }: Exchange): string => {
  const sent = [
    `${request.method} ${request.path} HTTP/1.1`,
    ...request.headers.map(([name, value]) => `${name}: ${value}`),
    "",
    shortened(request.body.trimEnd())
  ]
  const received =
    "noAnswer" in answer
      ? [`(no answer: ${answer.noAnswer})`]
      : [`HTTP/1.1 ${answer.status}`, "", shortened(answer.body.trimEnd())]
  return [...marked(">", sent), ...marked("<", received)].join("\n")
}

const marked = (mark: string, lines: ReadonlyArray<string>): ReadonlyArray<string> =>
  lines
    .join("\n")
    .split("\n")
    .map((line) => `${mark} ${line}`.trimEnd())

const shortened = (text: string): string => (text.length <= 2000 ? text : `${text.slice(0, 2000)}…`)
