/**
 * Hosts between one client and one backend, each in a network namespace of its own, compared by the new connections
 * that they let through: a rate, and the processor time of each connection. They take turns, in another order each
 * round. The kernel handles packets in their sender's time, so the client's and the backend's time has the host's
 * work for packets; the time of processes in the way is added.
 */
import { execFileSync, spawn } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { processorMicros } from "./processorTime.ts"
import { compileLoad } from "./relaySubjects.ts"
import { median } from "./stats.ts"

export const firstPort = 10_001
export const backendPort = 80

/** Short, so that other load on the machine affects all subjects alike. */
const seconds = 0.25
const concurrent = 16

export interface Subject {
  readonly name: string
  /** Ports called in turn, from `firstPort` on; with 0, the backend itself is called. */
  readonly ports: number
  readonly prepare: (at: Place) => Promise<Prepared | undefined>
}

export interface Prepared {
  readonly stop: () => void
  /** The processor time that processes in the way of packets have used, in microseconds. */
  readonly micros?: () => number
}

/** The network namespace of a subject, and the third octet of its networks: `10.9.N.1` outside, `172.31.N.1` inside. */
export interface Place {
  readonly namespace: string
  readonly octet: number
  /** For files of the subject. */
  readonly folder: string
}

export interface HostsOptions {
  readonly rounds: number
  /** How many addresses the backend has on each network, from `172.31.N.2` on. */
  readonly backends: number
}

/** Results of each subject, by rounds. */
export interface Measured {
  readonly rates: ReadonlyArray<number>
  /** Processor time per connection, in microseconds. */
  readonly micros: ReadonlyArray<number>
}

export const measureHosts = async (
  subjects: ReadonlyArray<Subject>,
  { rounds, backends }: HostsOptions
): Promise<ReadonlyArray<Measured>> => {
  const folder = mkdtempSync(join(tmpdir(), "portmapper-bench-"))
  const [client, backend] = [nameOf("client"), nameOf("backend")]
  const places = subjects.map((_, octet): Place => ({ namespace: nameOf(`host${octet}`), octet, folder }))
  const namespaces = [client, backend, ...places.map(({ namespace }) => namespace)]
  const prepared: Array<Prepared | undefined> = []
  const load = compileLoad(folder)
  for (const name of namespaces) execFileSync("ip", ["netns", "add", name])
  const echo = spawn("ip", ["netns", "exec", backend, load, "echo", "0.0.0.0", `${backendPort}`])
  try {
    for (const place of places) connectUp(place, client, backend, backends)
    for (const [index, place] of places.entries()) prepared.push(await subjects[index]?.prepare(place))
    await sleep(1000)
    const runners = subjects.map((subject, index) => {
      const micros = () => processorMicros(echo.pid ?? 0) + (prepared[index]?.micros?.() ?? 0)
      return () => connectOnce({ subject, place: places[index] as Place, client, load, micros })
    })
    return inTurns(runners, rounds)
  } finally {
    echo.kill("SIGKILL")
    for (const each of prepared) each?.stop()
    for (const name of namespaces) execFileSync("ip", ["netns", "delete", name])
    rmSync(folder, { recursive: true, force: true })
  }
}

/** How much more one subject has than the other, round by round: other load changes from one round to the next. */
export const paired = (one: ReadonlyArray<number>, other: ReadonlyArray<number>): string =>
  median(one.map((value, round) => value / (other[round] ?? Number.NaN))).toFixed(2)

const nameOf = (role: string) => `pmbench-${process.pid}-${role}`

export const inside = (
  namespace: string,
  command: string,
  words: ReadonlyArray<string>,
  input = ""
): string =>
  execFileSync("ip", ["netns", "exec", namespace, command, ...words], {
    encoding: "utf8",
    input,
    stdio: ["pipe", "pipe", "pipe"]
  })

/** The client has 10.9.N.2 and 10.10.N.0/24, the backend 172.31.N.2; the host between them is .1 on both links. */
const connectUp = ({ namespace, octet }: Place, client: string, backend: string, backends: number) => {
  const sh = (where: string, script: string) => inside(where, "sh", ["-ec", script])
  sh(
    namespace,
    `ip link set lo up
    ip link add outer type veth peer name outer${octet} netns ${client}
    ip link add inner type veth peer name inner${octet} netns ${backend}
    ip address add 10.9.${octet}.1/24 dev outer; ip link set outer up
    ip address add 172.31.${octet}.1/24 dev inner; ip link set inner up
    ip route add 10.10.${octet}.0/24 via 10.9.${octet}.2
    sysctl -qw net.ipv4.ip_forward=1 net.ipv4.tcp_tw_reuse=1 net.ipv4.ip_local_port_range='1024 65535'`
  )
  sh(
    client,
    `ip link set lo up; ip link set outer${octet} up
    ip address add 10.9.${octet}.2/24 dev outer${octet}
    ip route add local 10.10.${octet}.0/24 dev lo
    ip route add 172.31.${octet}.0/24 via 10.9.${octet}.1`
  )
  sh(
    backend,
    `ip link set lo up; ip link set inner${octet} up
    for host in $(seq 2 ${1 + backends}); do ip address add 172.31.${octet}.$host/24 dev inner${octet}; done
    ip route add 10.9.${octet}.0/24 via 172.31.${octet}.1
    ip route add 10.10.${octet}.0/24 via 172.31.${octet}.1`
  )
}

interface Sample {
  readonly rate: number
  readonly micros: number
}

interface Attempt {
  readonly subject: Subject
  readonly place: Place
  readonly client: string
  readonly load: string
  /** The processor time used so far, without the client's. */
  readonly micros: () => number
}

const connectOnce = ({ subject, place, client, load, micros: usedSoFar }: Attempt): Sample => {
  const { octet, namespace } = place
  const { ports, name } = subject
  inside(namespace, "sh", ["-c", "conntrack -F || true"])
  const [host, port] = ports === 0 ? [`172.31.${octet}.2`, backendPort] : [`10.9.${octet}.1`, firstPort]
  const words = [host, port, concurrent, seconds, Math.max(ports, 1), `10.10.${octet}.2`]
  const before = usedSoFar()
  const { rate, failed, done, micros } = JSON.parse(inside(client, load, ["connect", ...words.map(String)]))
  if (failed > 0) throw new Error(`${name}: ${failed} connections failed`)
  return { rate, micros: (micros + usedSoFar() - before) / done }
}

/** The first round warms up. */
const inTurns = (runners: ReadonlyArray<() => Sample>, rounds: number): ReadonlyArray<Measured> => {
  const measured = runners.map(() => ({ rates: [] as Array<number>, micros: [] as Array<number> }))
  for (let round = 0; round <= rounds; round++)
    for (let turn = 0; turn < runners.length; turn++) {
      const index =
        (round % 2 === 0 ? turn + round : runners.length * 2 - turn - (round % runners.length)) %
        runners.length
      const sample = runners[index]?.()
      if (round === 0 || sample === undefined) continue
      measured[index]?.rates.push(sample.rate)
      measured[index]?.micros.push(sample.micros)
    }
  return measured
}
