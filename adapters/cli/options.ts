/** The options that several commands share, each with its rule and its default. */
import * as Fs from "node:fs"
import { type Duration, Option, Result } from "effect"
import { Flag } from "effect/cli"
import { type Mode, modes, parseDuration, parseIdle } from "../../src/mapper/model/Labels.ts"
import { type PortRange, parsePortRange } from "../../src/protocol/PortRange.ts"
import { type HostPort, parseHostPort } from "../docker/PluginTcp.ts"
import { defaultSocket, defaultState, isRoot } from "../node/DefaultPaths.ts"
import { optionalText, parsed, toggle } from "./flags.ts"

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

/** A label's rule, phrased like an option's. */
const expected = (rule: string): string => `expected ${rule}`

/** A plugin's name is the name of its socket and of its spec file, and no path. */
export const pluginName = (description: string) =>
  parsed("name", "NAME", description, (text) =>
    /^[A-Za-z0-9][\w.-]*$/.test(text)
      ? Result.succeed(text)
      : Result.fail("expected letters, digits, _, . and -, the first a letter or digit")
  ).pipe(Flag.withDefault("portmapper"))

export const name = pluginName("The plugin's name, by which the Engine finds its socket")

export const socket = optionalText(
  "socket",
  "PATH",
  "The plugin's Unix socket (root: /run/docker/plugins/NAME.sock)"
)

export const group = optional("group", "NAME|GID", "The group that may use the socket", parseGroup)

export const tcp = optional(
  "tcp",
  "HOST:PORT",
  "Listen on this TCP port, and on no Unix socket unless --socket is given; the Engine finds it by a spec file. Port 0: any that is free. Beyond loopback --tls-cert, --tls-key and --tls-ca are required",
  parseHostPort
)

/** Where the page is served: on a Unix socket, or on a TCP port. */
export type PageAddress = { readonly path: string } | HostPort

export const page = optional(
  "page",
  "unix:PATH|HOST:PORT",
  "Serve a page that shows what is published, read-only, on this Unix socket or TCP port. Beyond loopback --tls-cert, --tls-key and --tls-ca are required",
  (text): Result.Result<PageAddress, string> => {
    if (!text.startsWith("unix:"))
      return Result.mapError(parseHostPort(text), (expected) => `${expected}, or unix:PATH`)
    const path = text.slice("unix:".length)
    return path === "" ? Result.fail("expected a path after unix:") : Result.succeed({ path })
  }
)

export const pageHost = optional(
  "page-host",
  "NAME[,NAME...]",
  "Names by which a reverse proxy reaches the page; requests for others are refused",
  (text): Result.Result<ReadonlyArray<string>, string> => {
    const names = text.split(",").map((name) => name.trim())
    return names.every((name) => /^[A-Za-z0-9](?:[\w.-]{0,252})$/.test(name))
      ? Result.succeed(names)
      : Result.fail("expected names of hosts without a port, separated by commas")
  }
)

export const tlsCert = optionalText("tls-cert", "FILE", "The server's certificate with its chain, PEM")

export const tlsKey = optionalText("tls-key", "FILE", "The key of that certificate, PEM without a passphrase")

export const tlsCa = optionalText("tls-ca", "FILE", "What clients' certificates must be signed by, PEM")

export const specDir = optionalText(
  "spec-dir",
  "DIR",
  `Where the spec file is written while --tcp serves: NAME.spec, or NAME.json with TLS (${defaultTexts.specDir})`
)

export const specCert = optionalText(
  "spec-cert",
  "FILE",
  "For NAME.json: the certificate that the Engine shows (--tls-cert, where it may be a client's too)"
)

export const specKey = optionalText("spec-key", "FILE", "For NAME.json: the key of --spec-cert (--tls-key)")

export const specCa = optionalText(
  "spec-ca",
  "FILE",
  "For NAME.json: what the Engine wants the server's certificate signed by (--tls-ca)"
)

export const state = optionalText(
  "state",
  "DIR",
  "The folder of the state, mode 0700 (root: /run/portmapper; else beside the socket)"
)

/** `undefined` is `auto`. */
export const mode: Flag.Flag<Option.Option<Mode | undefined>> = Flag.ChoiceWithValue("mode", [
  ["auto", undefined],
  ...modes.map((each) => [each, each] as const)
]).pipe(Flag.withDescription(`How traffic gets to the backends (${defaultTexts.mode})`), Flag.optional)

export const ephemeral = optional(
  "ephemeral",
  "FIRST-LAST",
  "The range for ephemeral ports, instead of the system's",
  (text): Result.Result<PortRange, string> => parsePortRange(text)
)

/** A packet mark and the bits of it that count. */
export interface Mark {
  readonly mark: number
  readonly mask: number
}

export const acceptFwmark = optional(
  "accept-fwmark",
  "MARK[/MASK]",
  "Mark what is redirected; give the Engine the same by --bridge-accept-fwmark",
  parseMark
)

export const logFormat = Flag.Literals("log-format", ["pretty", "json", "logfmt"]).pipe(
  Flag.withDescription("How log lines on stderr are written (pretty on a terminal, else logfmt)"),
  Flag.withDefault(process.stderr.isTTY ? "pretty" : "logfmt")
)

export const udpIdle = optional(
  "udp-idle",
  "DURATION",
  `Close a relayed UDP flow after so long without a packet (${defaultTexts.udpIdle})`,
  (text) => Result.mapError(parseIdle(text), expected)
)

export const takeover = toggle(
  "takeover",
  "Take over from the process that serves on this state: its sockets stay open throughout. Where none serves, just start"
)

export const grace = optional(
  "grace",
  "DURATION",
  `How long relayed connections may go on after a stop or a takeover (${defaultTexts.grace})`,
  (text) => Result.mapError(parseDuration(text), expected)
)

export const shares = optional(
  "shares",
  "NAME[,NAME...]",
  "Shared ports that callers of every kind may join, each by the label portmapper.share=/NAME",
  (text): Result.Result<ReadonlyArray<string>, string> => {
    const names = text.split(",").map((name) => name.trim())
    return names.every((name) => /^[A-Za-z0-9][\w.-]{0,63}$/.test(name))
      ? Result.succeed(names)
      : Result.fail("expected names of letters, digits, _, . and -, at most 64 each, separated by commas")
  }
)

/** How a mapper of this host works; shared by the commands that run one. */
export const mapperFlags = { state, mode, ephemeral, acceptFwmark, udpIdle, shares }

/** The same options in the form that the layers take. */
export const mapperOptions = (options: {
  readonly name: string
  readonly socket: Option.Option<string>
  readonly state: Option.Option<string>
  readonly mode: Option.Option<Mode | undefined>
  readonly ephemeral: Option.Option<PortRange>
  readonly acceptFwmark: Option.Option<Mark>
  readonly udpIdle: Option.Option<Duration.Duration>
  readonly shares: Option.Option<ReadonlyArray<string>>
}) => ({
  stateDirectory: stateOf(options),
  mode: Option.getOrUndefined(options.mode),
  ephemeral: Option.getOrUndefined(options.ephemeral),
  acceptMark: Option.getOrUndefined(options.acceptFwmark),
  udpIdle: Option.getOrUndefined(options.udpIdle),
  shares: Option.getOrUndefined(options.shares)
})

/** Only root writes rules that match a mark. A mark agreed on with the Engine needs no rule of ours, but gets one. */
export const withDockerUser = <O extends { readonly mode: Mode | undefined }>(options: O, mark: Mark) => ({
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

export const socketOf = (options: {
  readonly socket: Option.Option<string>
  readonly name: string
}): string => Option.getOrElse(options.socket, () => defaultSocket(options.name))

export const stateOf = (options: {
  readonly state: Option.Option<string>
  readonly socket: Option.Option<string>
  readonly name: string
}): string => Option.getOrElse(options.state, () => defaultState(socketOf(options)))

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
export function parseMark(text: string): Result.Result<Mark, string> {
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
