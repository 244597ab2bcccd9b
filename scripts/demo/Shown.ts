/** What a demo prints: a sentence, the command and the namespace it ran in, and its output; and rows of a table. */

type Place = "host" | "client"

export class Shown {
  /** Whether the last thing printed was a row. */
  #inTable = false
  readonly #paint = process.stdout.isTTY && process.env["NO_COLOR"] === undefined

  print(...lines: ReadonlyArray<string>): void {
    this.#inTable = false
    console.log(["", ...lines].join("\n"))
  }

  /** The header again, where something else was printed meanwhile. */
  row(header: ReadonlyArray<string>, cells: ReadonlyArray<string | number>): void {
    const line = (texts: ReadonlyArray<string | number>) =>
      `  ${texts.map((text, index) => String(text).padStart((header[index] ?? "").length)).join("  ")}`
    if (!this.#inTable) console.log(`\n${line(header)}`)
    this.#inTable = true
    console.log(line(cells))
  }

  ran(place: Place, command: string, output: string): void {
    this.#inTable = false
    const prompt = this.#styled(place === "host" ? "36" : "35", `${place} $`)
    console.log(`\n  ${prompt} ${this.#styled("1", command)}`)
    for (const line of output.trimEnd().split("\n")) console.log(`  ${line}`.trimEnd())
  }

  #styled(code: string, text: string): string {
    return this.#paint ? `\u001b[${code}m${text}\u001b[0m` : text
  }
}
