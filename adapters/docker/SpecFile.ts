/**
 * The file by which the Engine finds a plugin that has no socket in its folder: `NAME.spec` with one URL, or
 * `NAME.json` with an address and the files of a TLS client. Source: moby's `pkg/plugins/discovery.go`.
 */
import * as Fs from "node:fs"
import * as Path from "node:path"
import { Effect, Result, Schema, type Scope } from "effect"
import { bool, decodeText, goStruct, optional, text } from "../../src/protocol/GoSchema.ts"
import { connectionError } from "../node/connectionError.ts"
import { readIfThereUnsafe } from "../node/FileText.ts"
import { makeFolderUnsafe } from "../node/makeFolder.ts"
import { writeAtomicallyUnsafe } from "../node/StateDirectory.ts"
import { removeWritten, type WrittenFile } from "../node/WrittenFile.ts"
import { systemReason } from "./systemReason.ts"

/** A plugin's URL, and the TLS files that a client needs. */
export interface SpecAddress {
  /** `unix:///path`, `tcp://host:port`, `http://…`, `https://…` or `npipe:////./pipe/NAME`. */
  readonly url: string
  /** For `https`: the client's files. */
  readonly tls?: ClientTls | undefined
}

export interface ClientTls {
  /** The CA that must have signed the server's certificate. Without it the Engine accepts any server. */
  readonly caFile: string | undefined
  /** The client's certificate and key. */
  readonly certFile: string | undefined
  readonly keyFile: string | undefined
  readonly insecureSkipVerify: boolean
}

export class SpecFileError extends Schema.TaggedError<SpecFileError>()("SpecFileError", {
  path: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `${this.path}: ${this.detail}`
  }
}

export interface SpecOptions extends SpecAddress {
  /** The plugin's name, by which the Engine asks for it. */
  readonly name: string
  /** The first of the Engine's folders by default. */
  readonly folder?: string | undefined
  /** Whether a successor keeps the file; called at the end. */
  readonly isLeaving?: (() => boolean) | undefined
  /** Called with the written file, so that a successor that does not need it can remove it. */
  readonly onWritten?: ((file: WrittenFile) => void) | undefined
}

/** The first folder that the Engine searches. */
const defaultFolder =
  process.platform === "win32"
    ? Path.join(process.env["ProgramData"] ?? "C:\\ProgramData", "docker", "plugins")
    : "/etc/docker/plugins"

/**
 * Writes the file atomically, and removes it when the scope closes if it is unchanged; returns its path. To be called
 * once the plugin listens. Replaces a file that we left behind; fails if one is another plugin's, belongs to a process
 * of ours that still listens, or would be read by the Engine instead of this one.
 */
export const writeSpec = Effect.fnUntraced(function* (
  options: SpecOptions
): Effect.fn.Return<string, SpecFileError, Scope.Scope> {
  const { folder = defaultFolder, name } = options
  const path = Path.join(folder, `${name}${options.tls === undefined ? ".spec" : ".json"}`)
  if (!isName(name)) return yield* new SpecFileError({ path, detail: `${name} can't be a plugin's name` })
  const content =
    options.tls === undefined ? `${options.url}#${mark}\n` : jsonText(name, options, options.tls)
  yield* attempt(folder, "making the folder", () => makeFolderUnsafe(folder, 0o755))
  for (const found of candidates(folder, name)) yield* giveWay(found, content, found === path)
  yield* Effect.acquireRelease(
    // The Engine and every user's client read it.
    attempt(path, "writing it", () => writeAtomicallyUnsafe(path, content, 0o644)),
    () => Effect.sync(() => options.isLeaving?.() || removeWritten({ path, content }))
  )
  options.onWritten?.({ path, content })
  return path
})

/**
 * Marks our own files: the Engine drops a URL's fragment and ignores unknown JSON fields. Without the mark we could
 * not tell the file of a killed process that had another port from another plugin's file.
 */
const mark = "portmapper"

const SpecJson = goStruct({
  Name: text,
  Addr: text,
  TLSConfig: optional(goStruct({ InsecureSkipVerify: bool, CAFile: text, CertFile: text, KeyFile: text })),
  WrittenBy: text
})

const decodeSpec = decodeText(SpecJson)

const jsonText = (name: string, { url }: SpecAddress, tls: ClientTls): string => {
  const absolute = (file: string | undefined) => (file === undefined ? "" : Path.resolve(file))
  const spec: typeof SpecJson.Type = {
    Name: name,
    Addr: url,
    TLSConfig: {
      InsecureSkipVerify: tls.insecureSkipVerify,
      CAFile: absolute(tls.caFile),
      CertFile: absolute(tls.certFile),
      KeyFile: absolute(tls.keyFile)
    },
    WrittenBy: mark
  }
  return `${JSON.stringify(spec, null, 2)}\n`
}

/** The URL in a file that we wrote; `undefined` in any other. */
const ownUrl = (path: string, content: string): string | undefined => {
  if (!path.endsWith(".json"))
    return content.trim().endsWith(`#${mark}`) ? content.trim().replace(/#.*$/, "") : undefined
  const spec = Result.getOrUndefined(decodeSpec(content))
  return spec?.WrittenBy === mark ? spec.Addr : undefined
}

/** The files that the Engine looks for in a folder, in order. */
const candidates = (folder: string, name: string): ReadonlyArray<string> =>
  [".spec", ".json"].flatMap((ending) => [
    Path.join(folder, `${name}${ending}`),
    Path.join(folder, name, `${name}${ending}`)
  ])

/** Handles an existing file of our name: removes or replaces one that we left behind; any other is an error. */
const giveWay = Effect.fnUntraced(function* (path: string, content: string, replaced: boolean) {
  const found = yield* attempt(path, "reading it", () => readIfThereUnsafe(path))
  if (found === undefined || (replaced && found === content)) return
  const url = ownUrl(path, found)
  if (url === undefined)
    return yield* new SpecFileError({
      path,
      detail: "another plugin of this name is described here; remove the file, or choose another name"
    })
  if (yield* isServed(url))
    return yield* new SpecFileError({
      path,
      detail:
        "what is described here is being served; stop that process, remove the file or choose another name"
    })
  if (!replaced) yield* attempt(path, "removing what was left behind", () => Fs.rmSync(path, { force: true }))
})

/** Whether a process listens at this address. */
const isServed = (url: string): Effect.Effect<boolean> => {
  const parsed = URL.parse(url)
  if (parsed === null) return Effect.succeed(false)
  const { hostname, port, protocol } = parsed
  // Not `pathname`, which drops the dot of `//./pipe`.
  const path = url.slice("npipe://".length)
  const host = hostname.replace(/^\[|\]$/g, "")
  const target = protocol === "npipe:" ? { path } : { host, port: Number(port || 443) }
  return Effect.map(connectionError(target), (error) => error === undefined)
}

const isName = (name: string): boolean => /^[^/\\\0]+$/.test(name) && name !== "." && name !== ".."

const attempt = <A>(path: string, what: string, run: () => A): Effect.Effect<A, SpecFileError> =>
  Effect.try({
    try: run,
    catch: (error) => new SpecFileError({ path, detail: `${what} failed: ${systemReason(error)}` })
  })
