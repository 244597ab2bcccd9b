import type { IncomingMessage } from "node:http"

/** Yields the complete lines of an answer as they arrive; throws at one that is longer than `maxLength` characters. */
export async function* linesOf(response: IncomingMessage, maxLength: number): AsyncGenerator<string> {
  let begun: Array<string> = []
  let length = 0
  for await (const text of response.setEncoding("utf8") as AsyncIterable<string>) {
    for (const [index, part] of text.split("\n").entries()) {
      if (index > 0) {
        yield begun.join("")
        begun = []
        length = 0
      }
      begun.push(part)
      length += part.length
      if (length > maxLength) throw new Error(`a line is longer than ${maxLength} characters`)
    }
  }
}
