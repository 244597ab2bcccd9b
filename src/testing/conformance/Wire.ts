/** The black box: a raw request in, status, headers and body out. Whoever carries it chooses how. */
import { type Effect, Schema } from "effect"

export interface WireRequest {
  readonly method: string
  readonly path: string
  /** Sent as they are, `Host` among them; a body's length is added. */
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
  /** Carries one request, bounded in time. */
  readonly send: (request: WireRequest) => Effect.Effect<WireAnswer, NoAnswer>
}

/** One request with what came back, as a report shows it. */
export interface Exchange {
  readonly request: WireRequest
  readonly answer: WireAnswer | { readonly noAnswer: string }
}

/** As it travels: `>` is what was sent, `<` what came back. */
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
