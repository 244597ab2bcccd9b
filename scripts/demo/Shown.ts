/** What the demo prints: a sentence, the command and the namespace it ran in, and its output. */

type Place = "host" | "client"

export class Shown {
  readonly #paint = process.stdout.isTTY && process.env["NO_COLOR"] === undefined

  print(...lines: ReadonlyArray<string>): void {
    console.log(["", ...lines].join("\n"))
  }

  ran(place: Place, command: string, output: string): void {
    const prompt = this.#styled(place === "host" ? "36" : "35", `${place} $`)
    console.log(`\n  ${prompt} ${this.#styled("1", command)}`)
    for (const line of output.trimEnd().split("\n")) console.log(`  ${line}`.trimEnd())
  }

  #styled(code: string, text: string): string {
    return this.#paint ? `\u001b[${code}m${text}\u001b[0m` : text
  }
}
