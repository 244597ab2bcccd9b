/**
 * What it costs to have ports unique in a cluster: `MapPorts` and `UnmapPorts` of an exact and of an ephemeral port, with
 * and without `--cluster`, in turn. Each plugin is in a network namespace of its own, with an etcd of one member that waits
 * for its disk. Then a read of all claims of a full cluster. Needs root, nftables, iproute2 and etcd.
 */
import { execFileSync, spawn } from "node:child_process"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { Duration, Effect, Layer, Result } from "effect"
import * as EtcdClient from "../../adapters/etcd/EtcdClient.ts"
import { parseEndpoints } from "../../adapters/etcd/EtcdOptions.ts"
import { cellOf, cellSize, claimOf, portClaim } from "../../src/cluster/Cells.ts"
import { ClusterStore } from "../../src/cluster/ClusterStore.ts"
import { request } from "../../test/support/http.ts"
import { measureCalls, newSamples, type Samples } from "./calls.ts"
import { type Plugin, printed, startPlugin } from "./plugin.ts"
import { median, millis, ratio, row } from "./stats.ts"

const rounds = 20
const callsPerRound = 25

export const run = async (): Promise<void> => {
  if (process.getuid?.() !== 0) throw new Error("bench cluster needs root, nftables, iproute2 and etcd")
  const undo: Array<() => void> = []
  try {
    const alone = await start(undo, "alone", false)
    const joined = await start(undo, "joined", true)
    const pairs = [0, 8080].map((port) =>
      [alone, joined].map((plugin): Subject => ({ plugin, port, samples: newSamples() }))
    )
    const subjects = pairs.flat()
    const warm = (subject: Subject, calls: number) => measure({ ...subject, samples: newSamples() }, calls)
    for (const pair of pairs) {
      for (const subject of pair) await warm(subject, 1000)
      for (let round = 0; round < rounds; round++)
        for (const subject of pair) {
          await warm(subject, 5)
          await measure(subject, callsPerRound)
        }
    }
    print(subjects)
    for (const subject of subjects.filter(({ plugin }) => plugin === joined)) {
      const before = await writesOf(joined)
      await warm(subject, 250)
      const writes = ((await writesOf(joined)) - before) / 250
      console.log(row([`writes to etcd for ${nameOf(subject)}`, writes.toFixed(3)]))
    }
    await readAll(undo)
  } finally {
    for (const step of undo.reverse()) step()
  }
}

interface Subject {
  readonly plugin: Plugin
  /** 0: any. */
  readonly port: number
  readonly samples: Samples
}

const measure = ({ plugin, port, samples }: Subject, calls: number) =>
  measureCalls(plugin.call, samples, calls, (index) => (port === 0 ? 0 : port + (index % 1000)))

const nameOf = ({ port }: Subject): string => (port === 0 ? "an ephemeral port" : "an exact port")

const print = (subjects: ReadonlyArray<Subject>): void => {
  console.log(row(["p50 over the Unix socket, nat mode", "map", "unmap", "map, ratio"]))
  for (const [index, subject] of subjects.entries()) {
    const { map, unmap } = subject.samples
    const alone = subjects[index - 1]
    const isJoined = index % 2 === 1 && alone !== undefined
    const more = isJoined ? ratio(median(map), median(alone.samples.map)) : ""
    const name = `${nameOf(subject)}${isJoined ? ", --cluster" : ""}`
    console.log(row([name, millis(median(map)), millis(median(unmap)), more]))
  }
}

/** Until now. */
const writesOf = async ({ folder }: Plugin): Promise<number> => {
  const { body } = await request(Path.join(folder, "p.sock"), "/metrics", "", { method: "GET" })
  return Number(/^portmapper_cluster_etcd_requests_total\{kind="write"\} (\d+)$/m.exec(body)?.[1] ?? 0)
}

const start = async (undo: Array<() => void>, name: string, isJoined: boolean): Promise<Plugin> => {
  const namespace = `pmbench-${process.pid}-${name}`
  execFileSync("ip", ["netns", "add", namespace])
  undo.push(() => void execFileSync("ip", ["netns", "delete", namespace]))
  execFileSync("ip", ["-n", namespace, "link", "set", "lo", "up"])
  const options = isJoined ? ["--cluster", await startEtcd(undo, ["ip", "netns", "exec", namespace])] : []
  const plugin = await startPlugin(namespace, () => options)
  undo.push(plugin.stop)
  return plugin
}

const startEtcd = async (undo: Array<() => void>, wrapper: ReadonlyArray<string>): Promise<string> => {
  const folder = Fs.mkdtempSync(Path.join(Os.tmpdir(), "portmapper-bench-"))
  undo.push(() => Fs.rmSync(folder, { recursive: true, force: true }))
  const [url, peer] = ["http://127.0.0.1:23970", "http://127.0.0.1:23971"]
  const [command = "", ...args] = [
    ...wrapper,
    ...["etcd", "--data-dir", folder, "--initial-cluster", `default=${peer}`],
    ...["--listen-client-urls", url, "--advertise-client-urls", url],
    ...["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
  ]
  const child = spawn(command, args, { stdio: ["ignore", "ignore", "pipe"] })
  undo.push(() => void child.kill("SIGKILL"))
  await printed(child, "ready to serve client requests")
  return url
}

/** A cluster in which every port is claimed. */
const readAll = async (undo: Array<() => void>): Promise<void> => {
  const url = await startEtcd(undo, [])
  const endpoints = Result.getOrThrow(parseEndpoints(url))
  const store = ClusterStore.layer({ name: "default" }).pipe(Layer.provide(EtcdClient.layer({ endpoints })))
  const claimant = { owner: "engine", backend: "172.31.0.2:80", container: "web", service: undefined }
  const read = Effect.gen(function* () {
    const { open, claim, readAll } = yield* ClusterStore
    const { session } = yield* open({ host: "a", identity: "bench", ttl: Duration.minutes(10) })
    for (let first = cellSize; first < 65_536; first += cellSize) {
      const ports = Array.from({ length: cellSize }, (_, index) => first + index)
      const claims = ports.map((port) => claimOf("a", portClaim({ protocol: "tcp", port }, claimant, 0)))
      yield* claim(session, { cell: cellOf(first), revision: 0 }, claims)
    }
    const begun = process.hrtime.bigint()
    const { cells } = yield* readAll
    const took = Number(process.hrtime.bigint() - begun) / 1000
    const count = cells.reduce((sum, { claims }) => sum + claims.length, 0)
    console.log(row([`reading ${count.toLocaleString("en")} claims`, millis(took)]))
  })
  await Effect.runPromise(Effect.provide(read, store))
}
