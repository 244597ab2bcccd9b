/** `serve --page`: the page beside the plugin, with what it tells of this process. Loaded only with that option. */
import { randomUUID } from "node:crypto"
import * as Os from "node:os"
import * as Path from "node:path"
import { Clock, Effect, Option } from "effect"
import manifest from "../../package.json" with { type: "json" }
import { Journal } from "../../src/page/Journal.ts"
import type { Driver } from "../../src/protocol/Driver.ts"
import { shellWord } from "../../src/protocol/ShellWord.ts"
import { engineUrl } from "../docker/PluginTcp.ts"
import type { ProcessUse } from "../docker/ProcessMetrics.ts"
import type { Renewals } from "../docker/TlsFiles.ts"
import { makeDoctor } from "../page/Doctor.ts"
import { type HostUse, makeFeed } from "../page/PageFeed.ts"
import { type PageFile, readPageFile } from "../page/PageFile.ts"
import { servePageTcp, servePageUnix } from "../page/PageServer.ts"
import { recordMappings, recordRefusals } from "../page/recording.ts"
import type { ListenerHandoff } from "../upgrade/ListenerHandoff.ts"
import { failed } from "./failure.ts"
import { missingOptions, tcpText, tlsOf } from "./listeners.ts"
import type { ListenerOptions } from "./options.ts"
import * as Options from "./options.ts"

export interface PageOptions extends ListenerOptions {
  readonly stateDirectory: string
  readonly address: Options.PageAddress
  readonly renewals: Renewals
  readonly doctorFlags: ReadonlyArray<string>
}

/** This process, and the one that it took over from, if any. */
export interface PageProcess {
  readonly pid: number | undefined
  readonly use: Effect.Effect<ProcessUse & { readonly threads: number; readonly maxThreads: number }>
}

export type ServedPage = Effect.Success<ReturnType<typeof makePage>>

/** To be made before the mapper, whose services it decorates. */
export const makePage = Effect.fnUntraced(function* (options: PageOptions, origin: PageProcess) {
  const file = yield* Effect.mapError(readPageFile(), ({ message }) => failed("serve --page", message))
  const clock = yield* Clock.Clock
  const journal = new Journal(() => clock.currentTimeMillisUnsafe())
  const recording = recordMappings(journal)
  return {
    decorate: recording.decorate,
    /** The driver to serve instead of the mapper's own, once that has restored what was mapped. */
    observed: (driver: Driver["Service"]) => {
      if (origin.pid === undefined) recording.begin("restored", "restored")
      else recording.begin(`took over from process ${origin.pid}:`, "tookOver")
      return recordRefusals(journal, driver)
    },
    /** Returns a text to follow "listening on". */
    serve: serveWith(options, origin, journal, file)
  }
})

const serveWith = (options: PageOptions, { use }: PageProcess, journal: Journal, file: PageFile) =>
  Effect.fnUntraced(
    function* (driver: Driver["Service"], handoff: ListenerHandoff) {
      const { address, renewals, name } = options
      const reaching = reachingFlags(options)
      const feed = yield* makeFeed({
        driver,
        journal,
        plugin: {
          ...{ name, version: manifest.version, host: Os.hostname() },
          startedAt: Math.round(performance.timeOrigin)
        },
        epoch: randomUUID(),
        use: Effect.map(use, hostUse),
        processorMillis: () => {
          const { user, system } = process.threadCpuUsage()
          return (user + system) / 1000
        },
        doctor: yield* makeDoctor(doctorCommand([...options.doctorFlags, ...reaching])),
        reaching: reaching.map((word) => ` ${shellWord(word)}`).join("")
      })
      const hosts = Option.getOrElse(options.pageHost, () => [])
      const server = { feed, file, hosts, handoff, renewals, tls: tlsOf(options) }
      if ("path" in address) {
        const { path } = address
        const groupId = Option.getOrUndefined(options.group)
        yield* servePageUnix(path, { ...server, groupId, folderMode: Options.folderMode() })
        if (
          groupId !== undefined &&
          Path.dirname(Path.resolve(path)) === Path.resolve(options.stateDirectory)
        )
          yield* Effect.logWarning(
            `the group of --group can't reach ${path}: its folder, that of the state, is for this user alone; give the page another folder`
          )
        return `${path} with the page`
      }
      return `${tcpText(yield* servePageTcp({ ...server, ...address }))}, with the page`
    },
    Effect.catchTag("TlsFilesMissing", (error) => Effect.fail(missingOptions(error)))
  )

/** How commands reach this plugin, unless it is where they look for one anyway. */
const reachingFlags = (options: PageOptions): ReadonlyArray<string> => {
  const { socket, tcp, tlsCert } = options
  if (Option.isSome(tcp) && Option.isNone(socket))
    return ["--url", engineUrl({ ...tcp.value, address: tcp.value.host, secure: Option.isSome(tlsCert) })]
  const path = Options.socketOf(options)
  return path === Options.defaultSocket("portmapper") ? [] : ["--socket", Path.resolve(path)]
}

/** The same program, as another process. */
const doctorCommand = (flags: ReadonlyArray<string>): readonly [string, ...ReadonlyArray<string>] => [
  process.execPath,
  ...process.execArgv,
  process.argv[1] ?? "",
  ...["doctor", "--json", ...flags]
]

const hostUse = (use: Effect.Success<PageProcess["use"]>): HostUse => ({
  descriptors: { used: use.openDescriptors, limit: use.maxDescriptors },
  memory: { used: use.residentBytes, limit: memoryLimit() },
  relayThreads: { used: use.threads, limit: use.maxThreads },
  relayRefused: use.refused
})

/** That of the control group if it has one. */
const memoryLimit = (): number => Math.min(process.constrainedMemory() || Os.totalmem(), Os.totalmem())
