/** The options that several commands share, each with its rule and its default. */
import * as Fs from "node:fs"
import { Option, Result } from "effect"
import { Flag } from "effect/cli"
import { type Mode, modes, parseDuration, parseIdle } from "../../src/mapper/model/Labels.ts"
import { type PortRange, parsePortRange } from "../../src/protocol/PortRange.ts"
import { type HostPort, parseHostPort } from "../docker/PluginTcp.ts"
import type { AcceptMark } from "../linux/nft/Ruleset.ts"
import { defaultSocket, defaultState, isRoot } from "../node/DefaultPaths.ts"
import { type Given, optionalText, parsed, toggle } from "./flags.ts"

export { defaultSocket, defaultState, isRoot }

/** The defaults that no option has as its value. */
export const defaultTexts = {
  mode: "auto",
  ephemeral: "the system's",
  udpIdle: "90s",
  grace: "10s",
  specDir: "/etc/docker/plugins",
  logLevel: "info"
}

const optional = <A>(...option: Parameters<typeof parsed<A>>) => Flag.optional(parsed(...option))

/** A plugin's name is the name of its socket and of its spec file, and no path. */
export const pluginName = (description: string) =>
  parsed("name", "NAME", description, (text) =>
    /^[A-Za-z0-9][\w.-]*$/.test(text)
      ? Result.succeed(text)
      : Result.fail("expected letters, digits, _, . and -, the first a letter or digit")
  ).pipe(Flag.withDefault("portmapper"))

/** Where the page is served: on a Unix socket, or on a TCP port. */
export type PageAddress = { readonly path: string } | HostPort

export const listenerFlags = {
  name: pluginName("The plugin's name, by which the Engine finds its socket"),
  socket: optionalText("socket", "PATH", "The plugin's Unix socket (root: /run/docker/plugins/NAME.sock)"),
  group: optional("group", "NAME|GID", "The group that may use the socket", parseGroup),
  tcp: optional(
    "tcp",
    "HOST:PORT",
    "Listen on this TCP port, and on no Unix socket unless --socket is given; the Engine finds it by a spec file. Port 0: any that is free. Beyond loopback --tls-cert, --tls-key and --tls-ca are required",
    parseHostPort
  ),
  page: optional(
    "page",
    "unix:PATH|HOST:PORT",
    "Serve a page that shows what is published, read-only, on this Unix socket or TCP port. Beyond loopback --tls-cert, --tls-key and --tls-ca are required",
    (text): Result.Result<PageAddress, string> => {
      if (!text.startsWith("unix:"))
        return Result.mapError(parseHostPort(text), (expected) => `${expected}, or unix:PATH`)
      const path = text.slice("unix:".length)
      return path === "" ? Result.fail("expected a path after unix:") : Result.succeed({ path })
    }
  ),
  pageHost: optional(
    "page-host",
    "NAME[,NAME...]",
    "Names by which a reverse proxy reaches the page; requests for others are refused",
    namesOf(/^[A-Za-z0-9](?:[\w.-]{0,252})$/, "expected names of hosts without a port, separated by commas")
  ),
  tlsCert: optionalText("tls-cert", "FILE", "The server's certificate with its chain, PEM"),
  tlsKey: optionalText("tls-key", "FILE", "The key of that certificate, PEM without a passphrase"),
  tlsCa: optionalText("tls-ca", "FILE", "What clients' certificates must be signed by, PEM"),
  specDir: optionalText(
    "spec-dir",
    "DIR",
    `Where the spec file is written while --tcp serves: NAME.spec, or NAME.json with TLS (${defaultTexts.specDir})`
  ),
  specCert: optionalText(
    "spec-cert",
    "FILE",
    "For NAME.json: the certificate that the Engine shows (--tls-cert, where it may be a client's too)"
  ),
  specKey: optionalText("spec-key", "FILE", "For NAME.json: the key of --spec-cert (--tls-key)"),
  specCa: optionalText(
    "spec-ca",
    "FILE",
    "For NAME.json: what the Engine wants the server's certificate signed by (--tls-ca)"
  )
}

export type ListenerOptions = Given<typeof listenerFlags>

export const logFormat = Flag.Literals("log-format", ["pretty", "json", "logfmt"]).pipe(
  Flag.withDescription("How log lines on stderr are written (pretty on a terminal, else logfmt)"),
  Flag.withDefault(process.stderr.isTTY ? "pretty" : "logfmt")
)

export const takeover = toggle(
  "takeover",
  "Take over from the process that serves on this state: its sockets stay open throughout. Where none serves, just start"
)

export const grace = optional(
  "grace",
  "DURATION",
  `How long relayed connections may go on after a stop or a takeover (${defaultTexts.grace})`,
  (text) => Result.mapError(parseDuration(text), (rule) => `expected ${rule}`)
)

/** How a mapper of this host works; shared by the commands that run one. */
export const mapperFlags = {
  state: optionalText(
    "state",
    "DIR",
    "The folder of the state, mode 0700 (root: /run/portmapper; else beside the socket)"
  ),
  /** `undefined` is `auto`. */
  mode: Flag.ChoiceWithValue("mode", [
    ["auto", undefined],
    ...modes.map((each) => [each, each] as const)
  ]).pipe(Flag.withDescription(`How traffic gets to the backends (${defaultTexts.mode})`), Flag.optional),
  ephemeral: optional(
    "ephemeral",
    "FIRST-LAST",
    "The range for ephemeral ports, instead of the system's",
    (text): Result.Result<PortRange, string> => parsePortRange(text)
  ),
  acceptFwmark: optional(
    "accept-fwmark",
    "MARK[/MASK]",
    "Mark what is redirected; give the Engine the same by --bridge-accept-fwmark",
    parseMark
  ),
  udpIdle: optional(
    "udp-idle",
    "DURATION",
    `Close a relayed UDP flow after so long without a packet (${defaultTexts.udpIdle})`,
    (text) => Result.mapError(parseIdle(text), (rule) => `expected ${rule}`)
  ),
  shares: optional(
    "shares",
    "NAME[,NAME...]",
    "Shared ports that callers of every kind may join, each by the label portmapper.share=/NAME",
    namesOf(
      /^[A-Za-z0-9][\w.-]{0,63}$/,
      "expected names of letters, digits, _, . and -, at most 64 each, separated by commas"
    )
  )
}

export type MapperFlags = Given<typeof mapperFlags> & Pick<ListenerOptions, "name" | "socket">

/** The same options in the form that the layers take. */
export const mapperOptions = (options: MapperFlags) => ({
  stateDirectory: stateOf(options),
  mode: Option.getOrUndefined(options.mode),
  ephemeral: Option.getOrUndefined(options.ephemeral),
  acceptMark: Option.getOrUndefined(options.acceptFwmark),
  udpIdle: Option.getOrUndefined(options.udpIdle),
  shares: Option.getOrUndefined(options.shares)
})

/** Only root writes rules that match a mark. A mark agreed on with the Engine needs no rule of ours, but gets one. */
export const withDockerUser = <O extends { readonly mode: Mode | undefined }>(
  options: O,
  mark: AcceptMark
) => ({
  ...options,
  dockerUserMark: isRoot() && (options.mode ?? "nat") === "nat" ? mark : undefined
})

export const releaseOnExit = Flag.Boolean("release-on-exit").pipe(
  Flag.withDescription("Unmap everything at the end; else ports stay published for the successor"),
  Flag.withDefault(false)
)

export const metrics = Flag.Literals("metrics", ["mappings", "totals"]).pipe(
  Flag.withDescription(
    "The traffic in GET /metrics: of each mapping (some 200 bytes each), or totals by protocol (mappings)"
  ),
  Flag.withDefault("mappings")
)

/** In the state directory of `watch`: where the other commands reach it. */
export const watchSocket = "watch.sock"

/** In the state directory of `serve`: where a successor asks to take over. */
export const handoverSocket = "handover.sock"

/** The mode of a folder created for a socket: the Engine's folder is readable by all, a user's own is private. */
export const folderMode = (): number => (isRoot() ? 0o755 : 0o700)

export const socketOf = (options: Pick<ListenerOptions, "socket" | "name">): string =>
  Option.getOrElse(options.socket, () => defaultSocket(options.name))

export const stateOf = (options: Pick<MapperFlags, "state" | "socket" | "name">): string =>
  Option.getOrElse(options.state, () => defaultState(socketOf(options)))

function namesOf(pattern: RegExp, expected: string) {
  return (text: string): Result.Result<ReadonlyArray<string>, string> => {
    const names = text.split(",").map((name) => name.trim())
    return names.every((name) => pattern.test(name)) ? Result.succeed(names) : Result.fail(expected)
  }
}

function parseGroup(text: string): Result.Result<number, string> {
  if (/^\d+$/.test(text)) return Result.succeed(Number(text))
  const id = Fs.readFileSync("/etc/group", "utf8")
    .split("\n")
    .map((entry) => entry.split(":"))
    .find(([name]) => name === text)?.[2]
  return id === undefined
    ? Result.fail("expected the name or number of a group of this host")
    : Result.succeed(Number(id))
}

/** Decimal or 0x hexadecimal, 32 bits; without a mask all bits count. A mark has bits, and only bits of its mask. */
function parseMark(text: string): Result.Result<AcceptMark, string> {
  const match = /^(0x[0-9a-f]{1,8}|\d{1,10})(?:\/(0x[0-9a-f]{1,8}|\d{1,10}))?$/i.exec(text)
  if (match === null) return Result.fail("expected MARK or MARK/MASK, such as 0x1/0x1")
  const mark = Number(match[1])
  const mask = match[2] === undefined ? 0xffffffff : Number(match[2])
  if (mark > 0xffffffff || mask > 0xffffffff) return Result.fail("a mark has 32 bits")
  if (mark === 0) return Result.fail("a mark of 0 is on every packet")
  return (mark & ~mask) === 0
    ? Result.succeed({ mark, mask })
    : Result.fail("the mark has bits outside its mask")
}
