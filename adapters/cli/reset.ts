/** `portmapper reset`: removes what a plugin of ours left on this host. Refuses while a plugin still serves. */
import * as Fs from "node:fs"
import * as Path from "node:path"
import { Console, Effect, Option, Result, type Scope } from "effect"
import { Command, Flag } from "effect/cli"
import { removeAccepted } from "../linux/nft/DockerUser.ts"
import { connectionError } from "../node/connectionError.ts"
import { lastingState } from "../node/DefaultPaths.ts"
import { attempt } from "../node/FileText.ts"
import { interruptedIsFailure } from "./clientFlags.ts"
import { confirm, yes } from "./confirm.ts"
import { type CommandFailed, failed } from "./failure.ts"
import type { Given } from "./flags.ts"
import { listenerOf, lockerOf, processText } from "./holders.ts"
import * as Options from "./options.ts"

interface Removal {
  readonly what: string
  /** Whether there was anything. */
  readonly remove: Effect.Effect<boolean, { readonly message: string }>
}

/** What is not a file; each is claimed before anything is removed. */
const host: ReadonlyArray<{
  readonly what: string
  /** Fails if a live process uses it, and keeps others off it until the scope closes. */
  readonly claim: Effect.Effect<Removal["remove"], CommandFailed, Scope.Scope>
}> = [
  {
    what: "nftables table inet portmapper",
    claim: Effect.flatMap(
      Effect.promise(() => import("./removeTable.ts")),
      ({ tableRemoval }) => tableRemoval
    )
  },
  {
    what: "our rule in DOCKER-USER",
    claim: Effect.sync(() => (Options.isRoot() ? removeAccepted : Effect.succeed(false)))
  }
]

const flags = {
  yes,
  state: Options.mapperFlags.state,
  name: Options.listenerFlags.name,
  socket: Options.listenerFlags.socket,
  specDir: Flag.String("spec-dir").pipe(
    Flag.withMetavar("DIR"),
    Flag.withDescription("Where serve --tcp wrote its spec file (/etc/docker/plugins)"),
    Flag.withDefault("/etc/docker/plugins")
  )
}

export const reset = Command.make("reset", flags, (options) =>
  Effect.gen(function* () {
    const found = filesOf(options)
    yield* refuseServed(found)
    const claimed = yield* Effect.forEach(host, ({ what, claim }) =>
      Effect.map(claim, (remove) => ({ what, remove }))
    )
    const files = [...found.state, ...found.sockets, ...found.specs]
    const all = [...files, ...host.map(({ what }) => what)]
    yield* confirm("reset", options.yes, {
      question: `This removes, where it is there:\n${all.map((each) => `  ${each}\n`).join("")}Remove it?`,
      refusal: "nothing was removed"
    })
    const removals = [...files.map(removeFile), ...claimed]
    const results = yield* Effect.forEach(removals, ({ what, remove }) =>
      Effect.map(Effect.result(remove), (result) => ({ what, result }))
    )
    removeEmpty(found.folders)
    const removed = results.filter(({ result }) => Result.isSuccess(result) && result.success)
    yield* Console.log(removed.map(({ what }) => `removed ${what}`).join("\n") || "nothing to remove")
    const kept = results.flatMap(({ what, result }) =>
      Result.isFailure(result) ? [`${what}: ${result.failure.message}`] : []
    )
    if (kept.length > 0) return yield* failed("removing failed", kept.join("; "))
  }).pipe(Effect.scoped, interruptedIsFailure)
).pipe(
  Command.withDescription(
    "Remove all that a plugin of ours left on this host: rules, state, sockets, spec files. Ports stop being published"
  ),
  Command.withShortDescription("Remove all that a plugin of ours left on this host"),
  Command.withExamples([
    { command: "portmapper reset", description: "Asks first" },
    { command: "portmapper reset --yes --state /run/portmapper" }
  ])
)

interface Found {
  readonly state: ReadonlyArray<string>
  readonly sockets: ReadonlyArray<string>
  readonly specs: ReadonlyArray<string>
  /** Removed if empty. */
  readonly folders: ReadonlyArray<string>
}

/** A state folder may contain other files, such as a socket: we remove only files that we write. */
const stateFile =
  /^\.?(mappings\.db|spare|lock|holder|engine|watch\.json|slept\.json)(-wal|-shm|-journal|\.\d+)?$|^(\.\d+\.)?handover\.sock$/

const filesOf = (options: Given<typeof flags>): Found => {
  const socket = Options.socketOf(options)
  const state = Option.getOrElse(options.state, () => Options.defaultState(socket))
  const lasting = lastingState(state)
  const folder = Path.dirname(socket)
  return {
    state: [state, ...(lasting === state ? [] : [lasting])].flatMap((each) =>
      entries(each)
        .filter((name) => stateFile.test(name))
        .map((name) => Path.join(each, name))
    ),
    sockets: [
      socket,
      Path.join(state, Options.watchSocket),
      ...entries(folder)
        .filter((name) => /^\.\d+\.sock$/.test(name))
        .map((name) => Path.join(folder, name))
    ].filter((path) => Fs.lstatSync(path, { throwIfNoEntry: false })?.isSocket() === true),
    specs: [`${options.name}.spec`, `${options.name}.json`]
      .map((name) => Path.join(options.specDir, name))
      .filter((path) => Fs.existsSync(path)),
    // We don't remove the Engine's own folders.
    folders: [state, lasting, folder].filter((path) => Path.basename(path) === "portmapper")
  }
}

const refuseServed = Effect.fnUntraced(function* ({ sockets, state }: Found) {
  for (const path of sockets)
    if ((yield* connectionError({ path })) === undefined)
      return yield* failed(
        "reset refused",
        `${processText(listenerOf(path))} is serving ${path}; stop it first`
      )
  const locker = lockerOf(state)
  if (locker !== undefined)
    return yield* failed(
      "reset refused",
      `${processText(locker)} is using ${Path.dirname(state[0] ?? "")}; stop it first`
    )
})

const removeFile = (path: string): Removal => ({
  what: path,
  remove: Effect.try({
    try: () => {
      if (!Fs.existsSync(path)) return false
      Fs.rmSync(path)
      return true
    },
    catch: (error) => error as Error
  })
})

const removeEmpty = (folders: ReadonlyArray<string>): void => {
  for (const path of new Set(folders)) {
    try {
      Fs.rmdirSync(path)
    } catch {
      // It contains other files, or does not exist.
    }
  }
}

const entries = (path: string): ReadonlyArray<string> => attempt(() => Fs.readdirSync(path)) ?? []
