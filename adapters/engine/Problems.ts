/** What could not be published, and stands until it can be: as the log tells it, as it is listed, and who it waits for. */
import { Clock, Effect } from "effect"
import type { DriverError, ListedMapping } from "../../src/protocol/Driver.ts"
import type { ReleasedBinding } from "../../src/protocol/PortBinding.ts"
import { protocolNumber } from "../../src/protocol/Protocol.ts"
import type { Problem, Want } from "./Wanted.ts"

/** A problem, and since when it is one. */
export interface Standing {
  readonly problem: Problem
  readonly sinceMillis: number
}

export interface Problems {
  /** These and no others: each container's trouble is told in the log once, and again when it is another one. */
  readonly tell: (now: ReadonlyArray<Problem>) => Effect.Effect<void>
  readonly standing: () => ReadonlyArray<Standing>
  /** Those of wants with these keys. */
  readonly forget: (keys: ReadonlySet<string>) => void
}

export const makeProblems = (): Problems => {
  let problems = new Map<string, Standing>()
  const told = new Map<string, string>()

  const tell = Effect.fnUntraced(function* (now: ReadonlyArray<Problem>) {
    const nowMillis = yield* Clock.currentTimeMillis
    const next = new Map<string, Standing>()
    for (const problem of now) {
      const key = `${problem.owner} ${problem.name} ${problem.publish ?? ""} ${problem.want?.key ?? ""}`
      next.set(key, { problem, sinceMillis: problems.get(key)?.sinceMillis ?? nowMillis })
    }
    problems = next
    const byName = Map.groupBy(now, ({ name }) => name)
    for (const [name, each] of byName) {
      const text = problemsText(each)
      if (told.get(name) === text) continue
      told.set(name, text)
      yield* each.every(({ waiting }) => waiting) ? Effect.logInfo(text) : Effect.logWarning(text)
    }
    for (const name of told.keys()) if (!byName.has(name)) told.delete(name)
  })

  return {
    tell,
    standing: () => [...problems.values()],
    forget: (keys) => {
      for (const [key, { problem }] of problems)
        if (problem.want !== undefined && keys.has(problem.want.key)) problems.delete(key)
    }
  }
}

export const problemOf = (want: Want, error: DriverError): Problem => ({
  name: want.name,
  owner: want.owner,
  publish: want.group.labels.get("portmapper.publish"),
  detail: error.message,
  want,
  waiting: false
})

/** The first of them, and how many more there are. */
const problemsText = (problems: ReadonlyArray<Problem>): string => {
  const [first, ...rest] = problems
  if (first === undefined) return ""
  const more = rest.length === 0 ? "" : ` (and ${rest.length} more)`
  const what = first.publish === undefined ? "" : `${first.publish}: `
  return `${first.name}: ${first.waiting ? "waiting: " : "not published: "}${what}${first.detail}${more}`
}

/** The port that a want asks for or had; 0 where any will do. */
const portOf = ({ key, group: { ports } }: Want, granted: ReadonlyMap<string, number>): number =>
  ports._tag === "Exact" ? ports.port : (granted.get(key) ?? (ports._tag === "Range" ? ports.first : 0))

/** Whether the port that was released is the one that could not be had. */
export const waitsFor = (
  { want }: Problem,
  { protocol, host, port }: ReleasedBinding,
  granted: ReadonlyMap<string, number>
): boolean =>
  want !== undefined &&
  port === portOf(want, granted) &&
  want.group.entries.some((entry) => entry.protocol === protocol && entry.host.key === host.key)

/** What could not be published is listed as conflicted, with the reason among its labels. */
export const listedProblem = (
  { problem, sinceMillis }: Standing,
  granted: ReadonlyMap<string, number>
): ListedMapping => {
  const { name, owner, publish, detail, want } = problem
  const entry = want?.group.entries[0]
  return {
    protocol: protocolNumber[entry?.protocol ?? "tcp"],
    frontendIp: entry?.requestedAddress ?? "",
    frontendPort: want === undefined ? 0 : portOf(want, granted),
    backendIp: entry?.backend.address.text ?? "",
    backendPort: entry?.backend.port ?? 0,
    mode: want?.group.labels.get("portmapper.mode") ?? "",
    owner,
    state: "conflicted",
    sinceMillis,
    labels: new Map([
      ["portmapper.container", name],
      ...(publish === undefined ? [] : [["portmapper.publish", publish] as const]),
      ["portmapper.error", detail]
    ]),
    connections: undefined,
    bytesIn: undefined,
    bytesOut: undefined
  }
}
