/**
 * Whether the harness finds faults that are known to be there: applies each patch of test/property/mutations to a copy of
 * the sources, searches for at most 60 s, and runs the example tests besides. Prints a list; ends with status 1 where a
 * fault was not found or a patch does not apply. Arguments: parts of names, to try those alone.
 */
import { spawnSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"

const root = Path.resolve(import.meta.dirname, "..")
const patches = Path.join(root, "test/property/mutations")
const boundSeconds = 60
const wanted = process.argv.slice(2)

interface Tried {
  readonly name: string
  readonly breaks: string
  /** Seconds until it was found; `undefined` where it was not. */
  readonly found: number | undefined
  readonly rule: string
  readonly examples: "found" | "not" | "not run"
  readonly applies: boolean
}

const tryPatch = (file: string): Tried => {
  const name = file.replace(/\.patch$/, "")
  const breaks = /^Breaks: (.*)$/m.exec(Fs.readFileSync(Path.join(patches, file), "utf8"))?.[1] ?? ""
  const copy = Fs.mkdtempSync(Path.join(Os.tmpdir(), "mutation-"))
  try {
    for (const part of ["src", "test", "adapters", "package.json", "tsconfig.json", "vitest.config.ts"])
      Fs.cpSync(Path.join(root, part), Path.join(copy, part), { recursive: true })
    Fs.symlinkSync(Fs.realpathSync(Path.join(root, "node_modules")), Path.join(copy, "node_modules"))
    const applied = spawnSync("patch", ["-p1", "--quiet", "-i", Path.join(patches, file)], { cwd: copy })
    if (applied.status !== 0)
      return { name, breaks, found: undefined, rule: "", examples: "not run", applies: false }

    const began = performance.now()
    const search = spawnSync(
      process.execPath,
      ["--import", "tsx", "test/property/search.ts", String(boundSeconds)],
      { cwd: copy, encoding: "utf8", env: { ...process.env, PORTMAPPER_SEED: "1" } }
    )
    const seconds = (performance.now() - began) / 1000
    const said = search.stdout + search.stderr
    const found = search.status !== 0
    if (found && !said.includes("on a host of"))
      throw new Error(`${name}: the search itself failed: ${search.stderr}`)
    const examples = spawnSync(
      process.execPath,
      [
        Path.join(copy, "node_modules/vitest/vitest.mjs"),
        "run",
        "--bail=1",
        ...["test/protocol", "test/ports", "test/mapper", "test/firewall", "test/docker"]
      ],
      { cwd: copy, encoding: "utf8" }
    )
    return {
      name,
      breaks,
      found: found ? seconds : undefined,
      rule: /broke rule (\S+):/.exec(said)?.[1] ?? (found ? "order" : ""),
      examples: examples.status === 0 ? "not" : "found",
      applies: true
    }
  } finally {
    Fs.rmSync(copy, { recursive: true, force: true })
  }
}

const lineOf = ({ name, breaks, found, rule, examples, applies }: Tried): string =>
  [
    !applies ? "NO PATCH " : found === undefined ? "NOT FOUND" : `${found.toFixed(1).padStart(5)} s  `,
    `by ${rule}`.padEnd(12),
    `examples: ${examples}`.padEnd(18),
    name,
    `(${breaks})`
  ].join("  ")

const tried: Array<Tried> = []
for (const file of Fs.readdirSync(patches).sort()) {
  if (!file.endsWith(".patch")) continue
  if (wanted.length > 0 && !wanted.some((part) => file.includes(part))) continue
  const each = tryPatch(file)
  tried.push(each)
  console.log(lineOf(each))
}

const found = tried.filter((each) => each.found !== undefined)
const alone = found.filter(({ examples }) => examples === "not")
console.log(
  `${found.length} of ${tried.length} found by the harness, ${alone.length} of them by no example test; ` +
    `longest ${Math.max(0, ...found.map((each) => each.found ?? 0)).toFixed(1)} s`
)
if (found.length < tried.length) process.exitCode = 1
