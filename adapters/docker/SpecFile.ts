/**
 * The file by which the Engine finds a plugin that has no socket in its folder: `NAME.spec` with one URL, or
 * `NAME.json` with an address and the files of a TLS client. Source: moby's `pkg/plugins/discovery.go`.
 */
import * as Fs from "node:fs"
import * as Net from "node:net"
import * as Path from "node:path"
import { Effect, Result, Schema, type Scope } from "effect"
import { bool, decodeText, goStruct, optional, text } from "../../src/protocol/GoSchema.ts"
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
  readonly onWritten?: ((file: SpecFile) => void) | undefined
}

/** A spec file and its content as written. */
export interface SpecFile {
  readonly path: string
  readonly content: string
}

/** The folders that the Engine searches, in order. */
export const engineFolders: ReadonlyArray<string> =
  process.platform === "win32"
    ? [Path.join(process.env["ProgramData"] ?? "C:\\ProgramData", "docker", "plugins")]
    : ["/etc/docker/plugins", "/usr/lib/docker/plugins"]

export const defaultFolder: string = engineFolders[0] ?? ""

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
  const content = options.tls === undefined ? specText(options) : jsonText(name, options, options.tls)
  yield* attempt(folder, "making the folder", () => Fs.mkdirSync(folder, { recursive: true, mode: 0o755 }))
  for (const found of candidates(folder, name)) yield* giveWay(found, content, found === path)
  yield* Effect.acquireRelease(
    attempt(path, "writing it", () => writeAtomically(path, content)),
    () => Effect.sync(() => options.isLeaving?.() || removeSpec({ path, content }))
  )
  options.onWritten?.({ path, content })
  return path
})

/** The address that the Engine would use for a plugin of this name; `undefined` if no folder has one. */
export const readSpec = Effect.fnUntraced(function* (
  name: string,
  folders: ReadonlyArray<string> = engineFolders
): Effect.fn.Return<SpecAddress | undefined, SpecFileError> {
  if (!isName(name)) return undefined
  for (const path of folders.flatMap((folder) => candidates(folder, name))) {
    const content = yield* readIfThere(path)
    if (content !== undefined) return yield* parseSpec(path, content)
  }
  return undefined
})

/** By the Engine's own rules: the extension determines the format. */
export const parseSpec = Effect.fnUntraced(function* (
  path: string,
  content: string
): Effect.fn.Return<SpecAddress, SpecFileError> {
  if (!path.endsWith(".json")) return { url: yield* urlOf(path, content.trim()) }
  const spec = yield* Effect.mapError(
    Effect.fromResult(decodeSpec(content)),
    (error) => new SpecFileError({ path, detail: error.message })
  )
  const url = yield* urlOf(path, spec.Addr)
  if (spec.TLSConfig === null) return { url }
  const { InsecureSkipVerify, CAFile, CertFile, KeyFile } = spec.TLSConfig
  return {
    url,
    tls: {
      caFile: CAFile || undefined,
      certFile: CertFile || undefined,
      keyFile: KeyFile || undefined,
      // The Engine, too, treats a missing CA as this.
      insecureSkipVerify: InsecureSkipVerify || CAFile === ""
    }
  }
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

const specText = ({ url }: SpecAddress): string => `${url}#${mark}\n`

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

const isOurs = (path: string, content: string): boolean =>
  path.endsWith(".json")
    ? Result.match(decodeSpec(content), {
        onFailure: () => false,
        onSuccess: (spec) => spec.WrittenBy === mark
      })
    : content.trim().endsWith(`#${mark}`)

/** The files that the Engine looks for in a folder, in order. */
const candidates = (folder: string, name: string): ReadonlyArray<string> =>
  [".spec", ".json"].flatMap((ending) => [
    Path.join(folder, `${name}${ending}`),
    Path.join(folder, name, `${name}${ending}`)
  ])

/** Handles an existing file of our name: removes or replaces one that we left behind; any other is an error. */
const giveWay = Effect.fnUntraced(function* (path: string, content: string, replaced: boolean) {
  const found = yield* readIfThere(path)
  if (found === undefined || (replaced && found === content)) return
  if (!isOurs(path, found))
    return yield* new SpecFileError({
      path,
      detail: "another plugin of this name is described here; remove the file, or choose another name"
    })
  if (yield* isServed(path, found))
    return yield* new SpecFileError({
      path,
      detail:
        "what is described here is being served; stop that process, remove the file or choose another name"
    })
  if (!replaced) yield* attempt(path, "removing what was left behind", () => Fs.rmSync(path, { force: true }))
})

/** Whether a process listens at the address in a file of ours. */
const isServed = (path: string, content: string): Effect.Effect<boolean, SpecFileError> =>
  Effect.flatMap(parseSpec(path, content), ({ url }) => {
    const { hostname, port, protocol } = new URL(url)
    const host = hostname.replace(/^\[|\]$/g, "")
    // Not `pathname`, which drops the dot of `//./pipe`.
    const pipe = url.slice("npipe://".length)
    return Effect.callback<boolean>((resume) => {
      const probe = Net.connect(protocol === "npipe:" ? { path: pipe } : { host, port: Number(port || 443) })
      const answer = (served: boolean) => () => {
        probe.destroy()
        resume(Effect.succeed(served))
      }
      probe.setTimeout(1000, answer(false)).once("connect", answer(true)).once("error", answer(false))
    })
  })

const readIfThere = (path: string): Effect.Effect<string | undefined, SpecFileError> =>
  attempt(path, "reading it", () => {
    try {
      return Fs.readFileSync(path, "utf8")
    } catch (error) {
      const code = error instanceof Error && "code" in error ? error.code : undefined
      if (code === "ENOENT" || code === "ENOTDIR") return undefined
      throw error
    }
  })

const writeAtomically = (path: string, content: string): void => {
  const unfinished = Path.join(Path.dirname(path), `.${Path.basename(path)}.${process.pid}`)
  Fs.rmSync(unfinished, { force: true })
  try {
    Fs.writeFileSync(unfinished, content, { flag: "wx" })
    // Whatever the umask: the Engine and every user's client read it.
    Fs.chmodSync(unfinished, 0o644)
    Fs.renameSync(unfinished, path)
  } catch (error) {
    Fs.rmSync(unfinished, { force: true })
    throw error
  }
}

/** Removes the file if it is unchanged. */
export const removeSpec = ({ path, content }: SpecFile): void => {
  try {
    if (Fs.readFileSync(path, "utf8") === content) Fs.rmSync(path, { force: true })
  } catch {
    // It is gone, or we can't tell that it is ours: leave it.
  }
}

const isName = (name: string): boolean => /^[^/\\\0]+$/.test(name) && name !== "." && name !== ".."

const schemes = ["unix:", "tcp:", "http:", "https:", "npipe:"]

const urlOf = (path: string, url: string): Effect.Effect<string, SpecFileError> => {
  const parsed = URL.parse(url)
  if (parsed === null || !schemes.includes(parsed.protocol))
    return Effect.fail(
      new SpecFileError({
        path,
        detail: `${JSON.stringify(url)} is not the URL of a plugin (${schemes.join("//, ")}//)`
      })
    )
  return Effect.succeed(url.replace(/#.*$/, ""))
}

const attempt = <A>(path: string, what: string, run: () => A): Effect.Effect<A, SpecFileError> =>
  Effect.try({
    try: run,
    catch: (error) => new SpecFileError({ path, detail: `${what} failed: ${systemReason(error)}` })
  })
