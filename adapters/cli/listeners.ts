/** Where `serve` listens: systemd's sockets, a Unix socket, a TCP port with its spec file; and their usage rules. */
import * as Fs from "node:fs"
import * as Path from "node:path"
import { Effect, Option, Result } from "effect"
import { isLoopback, parseAddress } from "../../src/protocol/Address.ts"
import { serveFd } from "../docker/InheritedSocket.ts"
import type { ServerOptions } from "../docker/PluginServer.ts"
import { serveUnix } from "../docker/PluginSocket.ts"
import {
  engineUrl,
  type HostPort,
  hostPortText,
  type Listening,
  serveTcp,
  type TlsFilesMissing,
  tcpPlace,
  tlsFor
} from "../docker/PluginTcp.ts"
import { checkSpec } from "../docker/SpecCheck.ts"
import { type ClientTls, writeSpec } from "../docker/SpecFile.ts"
import type { PassedSocket } from "../docker/Systemd.ts"
import type { Renewals } from "../docker/TlsFiles.ts"
import type { ListenerHandoff, Place } from "../upgrade/ListenerHandoff.ts"
import { unpaired, useless, WrongUsage } from "./failure.ts"
import type { ListenerOptions } from "./options.ts"
import * as Options from "./options.ts"
import { givenOf } from "./settings.ts"

/** Checks the options alone, to report wrong usage before anything changes. */
export const checkUsage = Effect.fnUntraced(function* (options: ListenerOptions) {
  const ownPort = Option.isSome(options.tcp)
  const pagePort = Option.filter(options.page, (page): page is HostPort => "host" in page)
  if (!ownPort && Option.isNone(pagePort) && process.env["LISTEN_FDS"] === undefined)
    yield* refuseUseless(options, ["tlsCert", "tlsKey", "tlsCa"], "--tcp or --page HOST:PORT")
  if (Option.isNone(options.page)) yield* refuseUseless(options, ["pageHost"], "--page")
  else yield* refuseSame(options, options.page.value)
  if (!ownPort) yield* refuseUseless(options, specFlags, "--tcp HOST:PORT")
  if (Option.isNone(options.tlsCert))
    yield* refuseUseless(options, ["specCert", "specKey", "specCa"], "--tls-cert")
  if (Option.isSome(options.specCert) !== Option.isSome(options.specKey))
    return yield* unpaired("--spec-cert", "--spec-key")
  // A name is resolved later, once.
  for (const asked of [...Option.toArray(options.tcp), ...Option.toArray(pagePort)])
    if (Result.isSuccess(parseAddress(asked.host)))
      yield* tlsFor(hostPortText(asked), asked.host, tlsOf(options)).pipe(Effect.mapError(missingOptions))
})

/** The server options that all listeners share, with the handoff that keeps their sockets for a successor. */
export interface KeptServer extends ServerOptions {
  readonly handoff: ListenerHandoff
  /** When to reload the TLS files. */
  readonly renewals: Renewals
}

/**
 * Keeps systemd's sockets for a successor, like those that we bind; returns those that it can't keep. Two sockets of
 * one unit have the same name.
 */
export const keepPassed = (
  passed: ReadonlyArray<PassedSocket>,
  handoff: ListenerHandoff
): ReadonlyArray<PassedSocket> =>
  passed.filter(({ fd, name }) => {
    const kept = handoff.keep(`systemd ${fd} ${name}`, fd, {})
    if (kept) Fs.closeSync(fd)
    return !kept
  })

const passedName = (place: string): string | undefined => /^systemd \d+ (.*)$/.exec(place)?.[1]

/** Serves on all listeners until the scope closes; returns a text for each, to follow "listening on". */
export const serveListeners = Effect.fnUntraced(
  function* (options: ListenerOptions, server: KeptServer, unkept: ReadonlyArray<PassedSocket>) {
    const { handoff } = server
    const tls = tlsOf(options)
    const listening: Array<string> = []
    for (const { fd, name } of unkept)
      listening.push(passedText(name, yield* serveFd(fd, { ...server, tls })))
    for (const place of handoff.places()) {
      const name = passedName(place)
      const kept = name === undefined ? undefined : handoff.adopt(place)
      if (name === undefined || kept === undefined) continue
      listening.push(passedText(name, yield* serveFd(kept.fd, { ...server, tls, place })))
    }
    if (Option.isSome(options.socket) || (Option.isNone(options.tcp) && listening.length === 0)) {
      const path = Options.socketOf(options)
      const groupId = Option.getOrUndefined(options.group)
      yield* serveUnix(path, { ...server, groupId, folderMode: Options.folderMode() })
      listening.push(path)
    }
    if (Option.isSome(options.tcp)) {
      const asked = options.tcp.value
      const served = yield* serveTcp({ ...server, ...asked, tls })
      yield* describe(options, served, handoff, tcpPlace(asked))
      listening.push(tcpText(served))
    }
    return listening
  },
  Effect.catchTag("TlsFilesMissing", (error) => Effect.fail(missingOptions(error)))
)

/** The page has a socket of its own. */
const refuseSame = (options: ListenerOptions, page: Options.PageAddress) => {
  const refuse = (text: string, other: string) =>
    Effect.fail(
      new WrongUsage({
        message: `--page ${text}: the plugin listens there, by ${other}; give the page another`
      })
    )
  if ("path" in page)
    return Path.resolve(page.path) === Path.resolve(Options.socketOf(options))
      ? refuse(`unix:${page.path}`, "--socket")
      : Effect.void
  const text = hostPortText(page)
  return Option.exists(options.tcp, (tcp) => hostPortText(tcp) === text) ? refuse(text, "--tcp") : Effect.void
}

const flagNames = { certFile: "--tls-cert", keyFile: "--tls-key", caFile: "--tls-ca" }

const specFlags = ["specDir", "specCert", "specKey", "specCa"] as const

const refuseUseless = (
  options: ListenerOptions,
  names: ReadonlyArray<Exclude<keyof ListenerOptions, "name">>,
  needed: string
) => {
  const given = givenOf(options, ...names)
  return given.length === 0 ? Effect.void : Effect.fail(useless(given, needed))
}

export const missingOptions = (error: TlsFilesMissing): WrongUsage => {
  const options = error.missing.map((name) => flagNames[name])
  const instead = error.beyondLoopback ? ", or listen on 127.0.0.1 instead" : ""
  return new WrongUsage({
    message: `${error.explain(options)}; give ${options.length === 1 ? "it" : "them"} as well${instead}`
  })
}

export const tlsOf = ({ tlsCert, tlsKey, tlsCa }: ListenerOptions) => ({
  certFile: Option.getOrUndefined(tlsCert),
  keyFile: Option.getOrUndefined(tlsKey),
  caFile: Option.getOrUndefined(tlsCa)
})

/** Writes the spec file for the Engine, and warns the user if the Engine can't connect by it. */
const describe = Effect.fnUntraced(function* (
  options: ListenerOptions,
  served: Listening,
  handoff: ListenerHandoff,
  place: Place
) {
  const { name, specDir } = options
  const url = engineUrl(served)
  const tls = served.secure ? clientTls(options) : undefined
  const folder = Option.getOrUndefined(specDir)
  const path = yield* writeSpec({
    ...{ name, folder, url, tls },
    isLeaving: () => handoff.isLeaving() || !handoff.accepts(),
    onWritten: (spec) => handoff.describe(place, { spec })
  })
  const socket = `/run/docker/plugins/${name}.sock`
  if (Fs.existsSync(socket))
    yield* Effect.logWarning(`the Engine does not read ${path} as long as ${socket} is there`)
  if (tls === undefined) return
  const check = Effect.catch(checkSpec(url, tls), ({ message }) =>
    Effect.logWarning(
      `an Engine that follows ${path} can't connect: ${message}; --spec-cert and --spec-key name what it shows, --spec-ca what it trusts, and the certificate in --tls-cert must be for the host in --tcp`
    )
  )
  // A socket that was taken over answers no request before the predecessor lets go.
  if (handoff.accepts()) yield* check
  else yield* Effect.forkScoped(Effect.andThen(handoff.mayAccept, check))
})

const clientTls = ({ specCa, specCert, specKey, tlsCa, tlsCert, tlsKey }: ListenerOptions): ClientTls => ({
  caFile: Option.getOrUndefined(Option.orElse(specCa, () => tlsCa)),
  certFile: Option.getOrUndefined(Option.orElse(specCert, () => tlsCert)),
  keyFile: Option.getOrUndefined(Option.orElse(specKey, () => tlsKey)),
  insecureSkipVerify: false
})

const passedText = (name: string, served: Listening | undefined): string =>
  served === undefined ? `systemd's socket ${name}` : `${tcpText(served)}, systemd's socket ${name}`

export const tcpText = (served: Listening): string => {
  const address = Result.getOrUndefined(parseAddress(served.address))
  const local = address !== undefined && isLoopback(address)
  const text = hostPortText({ host: served.address, port: served.port })
  if (served.secure) return `${text} with TLS`
  return local ? `${text} without TLS, for every user of this host` : text
}
