/**
 * Checks that the harness finds known faults: applies each of `test/property/mutations.ts` to a copy of the
 * sources, searches for at most 60 s of processor time (wall time, and in the lab, if the fault says so), and also
 * runs the example tests. Prints a list; exits with status 1 if a fault was not found. Arguments: parts of names,
 * to try only those; `--harness-only` leaves out the example tests.
 */
import { spawnSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { type Mutation, mutate, mutations } from "../test/property/mutations.ts"

const root = Path.resolve(import.meta.dirname, "..")
const boundSeconds = 60
const alone = process.argv.includes("--harness-only")
const wanted = process.argv.slice(2).filter((each) => each !== "--harness-only")

interface Tried {
  readonly name: string
  /** Seconds of processor time until it was found; `undefined` if it was not. */
  readonly found: number | undefined
  readonly rule: string
  readonly examples: "found" | "not" | "not run"
}

const examplesPass = (folder: string): boolean =>
  spawnSync(
    process.execPath,
    [
      Path.join(folder, "node_modules/vitest/vitest.mjs"),
      "run",
      "--bail=1",
      // A failure that depends on the machine's speed proves nothing about a fault.
      ...["--testNamePattern", "^(?!.*within a second)"],
      ...[
        "test/protocol",
        "test/ports",
        "test/mapper",
        "test/cluster",
        "test/firewall",
        "test/docker",
        "test/linux"
      ]
    ],
    { cwd: folder }
  ).status === 0

const programs = { harness: "search.ts", lab: "searchLab.ts", cluster: "searchCluster.ts" } as const

const programOf = ({ search }: Mutation): string => programs[search]

/** The line that the search prints about its find; `undefined` if it found nothing. */
const searchIn = (folder: string, program: string): string | undefined => {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [`test/property/${program}`, String(boundSeconds)],
    { cwd: folder, encoding: "utf8", env: { ...process.env, PORTMAPPER_SEED: "1" } }
  )
  if (status === 0) return undefined
  if (!/^on .*, after [\d.]+ s:/m.test(stdout)) throw new Error(`the search itself failed: ${stderr}`)
  return stdout
}

const tryMutation = (mutation: Mutation): Tried => {
  const { name, file } = mutation
  const copy = Fs.mkdtempSync(Path.join(Os.tmpdir(), "mutation-"))
  try {
    for (const part of ["src", "test", "adapters", "package.json", "tsconfig.json", "vitest.config.ts"])
      Fs.cpSync(Path.join(root, part), Path.join(copy, part), { recursive: true })
    Fs.symlinkSync(Fs.realpathSync(Path.join(root, "node_modules")), Path.join(copy, "node_modules"))
    Fs.writeFileSync(Path.join(copy, file), mutate(Fs.readFileSync(Path.join(root, file), "utf8"), mutation))
    const failure = searchIn(copy, programOf(mutation))
    const found = failure !== undefined
    return {
      name,
      found: found ? Number(/, after ([\d.]+) s:/.exec(failure)?.[1]) : undefined,
      rule: found ? (/broke rule (\S+):/.exec(failure)?.[1] ?? "order") : "",
      examples: alone ? "not run" : examplesPass(copy) ? "not" : "found"
    }
  } finally {
    Fs.rmSync(copy, { recursive: true, force: true })
  }
}

const lineOf = ({ name, found, rule, examples }: Tried): string =>
  [
    found === undefined ? "NOT FOUND" : `${found.toFixed(1).padStart(5)} s  `,
    `by ${rule}`.padEnd(12),
    `examples: ${examples}`.padEnd(18),
    name
  ].join("  ")

const chosen = mutations.filter(
  ({ name }) => wanted.length === 0 || wanted.some((part) => name.includes(part))
)

// A failure without any fault proves nothing about one.
for (const program of new Set(chosen.map(programOf))) {
  const failure = searchIn(root, program)
  if (failure !== undefined) throw new Error(`${program} finds something without any fault: ${failure}`)
}
if (!alone && !examplesPass(root)) throw new Error("the example tests fail without any fault")

const tried: Array<Tried> = []
for (const mutation of chosen) {
  const each = tryMutation(mutation)
  tried.push(each)
  console.log(lineOf(each))
}

const found = tried.filter((each) => each.found !== undefined)
const unnoticed = found.filter(({ examples }) => examples === "not")
console.log(
  `${found.length} of ${tried.length} found by the harness, ${unnoticed.length} of them by no example test; ` +
    `longest ${Math.max(0, ...found.map((each) => each.found ?? 0)).toFixed(1)} s`
)
if (found.length < tried.length) process.exitCode = 1
