import type { IncomingMessage } from "node:http"

/** Yields the complete lines of an answer as they arrive; throws at one that is longer than `maxLength` characters. */
export async function* linesOf(response: IncomingMessage, maxLength: number): AsyncGenerator<string> {
  let begun: Array<string> = []
  let length = 0
  for await (const text of response.setEncoding("utf8") as AsyncIterable<string>) {
    const [first = "", ...others] = text.split("\n")
    begun.push(first)
    length += first.length
    if (length > maxLength) throw new Error(`a line is longer than ${maxLength} characters`)
    const last = others.pop()
    if (last === undefined) continue
    yield begun.join("")
    yield* others
    begun = [last]
    length = last.length
  }
}
