/**
 * The Unix socket of a plugin: where the Engine looks for it, who may use it, and that only one process serves it.
 */
import * as Fs from "node:fs"
import type * as Http from "node:http"
import * as Net from "node:net"
import * as Path from "node:path"
import { Effect, Schema, type Scope } from "effect"
import type { Driver } from "../../src/protocol/Driver.ts"
import { connectionError } from "../node/connectionError.ts"
import { makeFolderUnsafe } from "../node/makeFolder.ts"
import { replaceablePart } from "../node/OwnPath.ts"
import { isOwnFile, removeOwnFile, untilRemoved } from "../node/SocketFile.ts"
import { type AdoptedListener, listenKept, type Place } from "../upgrade/ListenerHandoff.ts"
import { type ServerOptions, serve } from "./PluginServer.ts"

export class SocketFileError extends Schema.TaggedError<SocketFileError>()("SocketFileError", {
  path: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `${this.path}: ${this.detail}`
  }
}

export interface SocketFileOptions extends ServerOptions {
  /** The id of the group that may use the socket; the process's own if `undefined`. */
  readonly groupId?: number | undefined
  /** The mode of the folder if it has to be created; 0755 if `undefined`. */
  readonly folderMode?: number | undefined
}

/** How to listen on a Unix socket, whatever is served there. */
export type UnixListener = Pick<SocketFileOptions, "groupId" | "folderMode" | "handoff">

/** The longest path that `sockaddr_un` holds, less what the unfinished socket's longer name needs. */
const maxPathBytes = 107

/**
 * Serves the plugin on a Unix socket of mode 0660 until the scope closes. Creates the folder if it is missing.
 * Replaces a socket file that no process listens on; a socket in use, or a file that is no socket, is an error. The
 * socket gets its name only when it is ready, and is removed at the end if it is still ours.
 */
export const serveUnix = (
  path: string,
  options: SocketFileOptions = {}
): Effect.Effect<void, SocketFileError, Driver | Scope.Scope> =>
  serve((server) => listenUnix(server, path, options), { ...options, place: unixPlace(path) })

/** The handoff's key for a Unix socket. */
const unixPlace = (path: string): Place => `unix ${Path.resolve(path)}`

/** Binds any HTTP server as `serveUnix` binds the plugin's. */
export const listenUnix = (
  server: Http.Server,
  path: string,
  options: UnixListener
): Effect.Effect<void, SocketFileError, Scope.Scope> =>
  Effect.gen(function* () {
    const kept = options.handoff?.adopt(unixPlace(path))
    const isInPlace = kept?.inode !== undefined && isOwnFile(path, kept.inode)
    if (kept !== undefined && !isInPlace) Fs.closeSync(kept.fd)
    const inode = yield* listenAt(server, path, options, isInPlace ? kept : undefined)
    yield* Effect.forkScoped(stayAt(server, path, options, inode))
  })

/** Returns the inode of the socket's file. */
const listenAt = (
  server: Net.Server,
  path: string,
  options: UnixListener,
  kept: AdoptedListener | undefined
) =>
  Effect.gen(function* () {
    const { handoff } = options
    let inode = 0
    const bind = Effect.tap(bindUnix(server, path, options), (bound) =>
      Effect.sync(() => {
        inode = bound.inode
      })
    )
    if (handoff === undefined) yield* bind
    else yield* listenKept(server, unixPlace(path), handoff, kept, bind)
    return kept === undefined ? inode : yield* ownFile(path, path, options)
  })

/**
 * Where another process removes, moves or replaces the socket, listens at the path again: clients of the old socket are
 * served as before, new ones would not find it.
 */
const stayAt = (server: Http.Server, path: string, options: UnixListener, bound: number) =>
  Effect.gen(function* () {
    let inode = bound
    while (true) {
      yield* untilRemoved(path, inode)
      if (options.handoff?.isLeaving() === true) return
      const another = Net.createServer({ allowHalfOpen: true }, (socket) => server.emit("connection", socket))
      another.maxConnections = server.maxConnections
      yield* Effect.addFinalizer(() => Effect.sync(() => another.close()))
      inode = yield* listenAt(another, path, options, undefined)
      yield* Effect.logWarning(`someone removed, moved or replaced ${path}: the plugin listens there again`)
    }
  }).pipe(
    Effect.catch(({ message }) => Effect.logError(`${message}; restart the plugin to listen there again`))
  )

const bindUnix = (server: Net.Server, path: string, options: UnixListener) =>
  Effect.gen(function* () {
    const { folderMode } = options
    const unfinished = Path.join(Path.dirname(path), `.${process.pid}.sock`)
    const longest = path.length > unfinished.length ? path : unfinished
    if (Buffer.byteLength(longest) > maxPathBytes)
      return yield* new SocketFileError({
        path,
        detail: `a socket's path has at most ${maxPathBytes} bytes, this one ${Buffer.byteLength(longest)}`
      })
    const folder = Path.dirname(path)
    yield* refuseReplaceable(path, folder)
    yield* attempt(path, "making the folder", () => makeFolderUnsafe(folder, folderMode ?? 0o755))
    // Another user may have created it first.
    yield* refuseReplaceable(path, folder)
    yield* refuseServed(path)
    yield* attempt(unfinished, "removing an unfinished socket", () => Fs.rmSync(unfinished, { force: true }))
    yield* listen(server, unfinished)
    return { inode: yield* ownFile(path, unfinished, options) }
  })

const refuseReplaceable = (path: string, folder: string): Effect.Effect<void, SocketFileError> =>
  Effect.flatMap(
    attempt(path, "looking at the folder", () => replaceablePart(folder)),
    (detail) => (detail === undefined ? Effect.void : Effect.fail(new SocketFileError({ path, detail })))
  )

/**
 * Sets the socket file's group and moves it to its path, until the scope closes; then it stays if a successor has it,
 * or a predecessor that resumes serving.
 */
const ownFile = (path: string, from: string, { groupId, handoff }: UnixListener) =>
  Effect.acquireRelease(
    attempt(path, "putting the socket in its place", () => {
      if (groupId !== undefined) Fs.chownSync(from, process.getuid?.() ?? 0, groupId)
      if (from !== path) Fs.renameSync(from, path)
      return Fs.statSync(path).ino
    }),
    (inode) =>
      Effect.sync(() => {
        const isOthers = handoff?.isLeaving() === true || (from === path && handoff?.accepts() === false)
        if (!isOthers) removeOwnFile(path, inode)
      })
  )

/** Binds under a umask that makes the mode 0660, so that no other user can connect at any moment. */
const listen = (server: Net.Server, path: string): Effect.Effect<void, SocketFileError> =>
  Effect.callback((resume) => {
    const failed = (error: Error) =>
      resume(Effect.fail(new SocketFileError({ path, detail: `listening failed: ${error.message}` })))
    server.once("error", failed)
    const umask = process.umask(0o117)
    try {
      server.listen({ path, backlog: 1024 }, () => {
        server.off("error", failed)
        resume(Effect.void)
      })
    } finally {
      process.umask(umask)
    }
  })

/** Fails if the path is taken, except by a socket that no process listens on. */
const refuseServed = (path: string): Effect.Effect<void, SocketFileError> =>
  Effect.gen(function* () {
    const found = yield* attempt(path, "looking for a socket", () =>
      Fs.lstatSync(path, { throwIfNoEntry: false })
    )
    if (found === undefined) return
    if (!found.isSocket())
      return yield* new SocketFileError({ path, detail: "a file that is no socket is in the way" })
    const error = yield* connectionError({ path })
    if (error === undefined)
      return yield* new SocketFileError({ path, detail: "another process is serving it" })
    if (error.code !== "ECONNREFUSED" && error.code !== "ENOENT")
      return yield* new SocketFileError({ path, detail: `asking who serves it failed: ${error.message}` })
  })

const attempt = <A>(path: string, what: string, run: () => A): Effect.Effect<A, SocketFileError> =>
  Effect.try({
    try: run,
    catch: (error) =>
      new SocketFileError({
        path,
        detail: `${what} failed: ${error instanceof Error ? error.message : String(error)}`
      })
  })
