/**
 * etcd as Debian has it, of one or more members, with its data in a temporary folder: on loopback, or each member in a
 * namespace of a lab. It writes without waiting for the disk, since no test loses power.
 */
import { rmSync } from "node:fs"
import { join } from "node:path"
import { Effect, Exit, Scope } from "effect"
import { temporaryFolder } from "../support/folders.ts"
import { reservePorts } from "../support/ports.ts"
import { check, LabError } from "./Process.ts"
import { patienceMillis } from "./patience.ts"
import { type Running, type SpawnOptions, spawn } from "./Running.ts"

export interface EtcdMember {
  readonly url: string
  readonly folder: string
  /** Of its last start. */
  readonly process: () => Running
  /** Ends it by SIGKILL; its data stays. */
  readonly kill: Effect.Effect<void>
  /** Starts it again on its data, `options` added to its command; returns once it serves. */
  readonly start: (options?: ReadonlyArray<string>) => Effect.Effect<void, LabError>
  /** Replaces its data, while it does not run, by a snapshot that `etcdctl snapshot save` wrote. */
  readonly restore: (snapshot: string) => Effect.Effect<void, LabError>
}

export interface EtcdCluster {
  readonly members: ReadonlyArray<EtcdMember>
  /** As `--cluster` takes them. */
  readonly urls: string
  /** Runs `etcdctl` and returns what it prints; fails where it does. */
  readonly ctl: (...args: ReadonlyArray<string>) => Effect.Effect<string, LabError>
  /** The same, without asking this member. */
  readonly ctlBeside: (member: EtcdMember) => EtcdCluster["ctl"]
}

/** Where a member runs: by default on loopback. */
export interface EtcdPlace {
  readonly address: string
  readonly spawn: (
    command: string,
    args: ReadonlyArray<string>,
    options?: SpawnOptions
  ) => Effect.Effect<Running, LabError, Scope.Scope>
  readonly check?: (command: string, args: ReadonlyArray<string>) => Effect.Effect<string, LabError>
}

export interface EtcdOptions {
  /** One member for each. */
  readonly places?: ReadonlyArray<EtcdPlace>
  /** Further options of each member, such as `--auto-compaction-retention=1`. */
  readonly arguments?: ReadonlyArray<string>
  /** PEM files of a server, for `https://`. */
  readonly tls?: { readonly cert: string; readonly key: string; readonly ca: string }
}

const loopback: EtcdPlace = { address: "127.0.0.1", spawn }

export const startEtcd = Effect.fn("startEtcd")(function* ({
  places = [loopback],
  arguments: more = [],
  tls
}: EtcdOptions = {}): Effect.fn.Return<EtcdCluster, LabError, Scope.Scope> {
  const folder = yield* temporaryFolder
  const onLoopback = places.every(({ address }) => address === loopback.address)
  const portOf = onLoopback ? yield* Effect.promise(takePorts) : (index: number) => 2379 + (index % 2)
  const scheme = tls === undefined ? "http" : "https"
  const sites = places.map((place, index) => ({
    place,
    name: `e${index}`,
    client: `${scheme}://${place.address}:${portOf(2 * index)}`,
    peer: `http://${place.address}:${portOf(2 * index + 1)}`
  }))
  const initial = sites.map(({ name, peer }) => `${name}=${peer}`).join(",")
  const common = [
    "--unsafe-no-fsync",
    ...(tls === undefined ? [] : ["--cert-file", tls.cert, "--key-file", tls.key]),
    ...more
  ]
  const members = sites.map(({ place, name, client, peer }) => {
    const data = join(folder, name)
    const identity = [
      ...["--name", name, "--data-dir", data, "--initial-advertise-peer-urls", peer],
      ...["--initial-cluster", initial, "--initial-cluster-token", folder]
    ]
    const listens = [
      ...["--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer]
    ]
    return makeMember(place, client, data, identity, [...listens, ...common])
  })
  yield* Effect.forEach(members, (member) => Effect.addFinalizer(() => member.kill))
  yield* Effect.forEach(members, (member) => member.start(), { concurrency: "unbounded" })
  const [first = loopback] = places
  const ctlAt =
    (endpoints: string): EtcdCluster["ctl"] =>
    (...args) =>
      (first.check ?? check)("etcdctl", [
        ...["--endpoints", endpoints],
        ...(tls === undefined ? [] : ["--cacert", tls.ca]),
        ...args
      ])
  const urlsBeside = (one?: EtcdMember) =>
    members.flatMap((each) => (each === one ? [] : [each.url])).join(",")
  return {
    members,
    urls: urlsBeside(),
    ctl: ctlAt(urlsBeside()),
    ctlBeside: (member) => ctlAt(urlsBeside(member))
  }
})

/** For the files of one process that start an etcd each. */
let taken = 0
let block: Promise<(index: number) => number> | undefined

const takePorts = async (): Promise<(index: number) => number> => {
  block ??= reservePorts()
  const portOf = await block
  const from = taken
  taken += 6
  return (index) => portOf(from + index)
}

const makeMember = (
  { spawn: start }: EtcdPlace,
  url: string,
  folder: string,
  identity: ReadonlyArray<string>,
  args: ReadonlyArray<string>
): EtcdMember => {
  let current: { readonly running: Running; readonly scope: Scope.Closeable } | undefined
  const kill = Effect.suspend(() => {
    if (current === undefined) return Effect.void
    const { running, scope } = current
    current = undefined
    // Also one that is stopped.
    return Effect.andThen(running.kill("SIGKILL"), Scope.close(scope, Exit.void))
  })
  return {
    url,
    folder,
    kill,
    process: () => {
      if (current === undefined) throw new LabError({ operation: url, detail: "it does not run" })
      return current.running
    },
    start: Effect.fnUntraced(function* (options: ReadonlyArray<string> = []) {
      const scope = yield* Scope.make()
      const running = yield* Scope.provide(
        start("etcd", [...identity, ...args, ...options], {
          label: `etcd ${url}`,
          graceMillis: patienceMillis
        }),
        scope
      )
      current = { running, scope }
      yield* running.waitForLine("ready to serve client requests")
    }),
    restore: Effect.fnUntraced(function* (snapshot: string) {
      rmSync(folder, { recursive: true })
      yield* check("etcdctl", ["snapshot", "restore", snapshot, ...identity])
    })
  }
}
