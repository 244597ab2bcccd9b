/**
 * New connections per second through a kernel redirection: with 1, 10 and 10,000 mappings live, and with 1,000
 * services of 10 backends each, each port called in turn, beside a single hand-written `dnat` rule and a route
 * without any redirection. Each subject is a host of
 * its own between one client and one backend; they take turns, in another order each round. Beside the rate stands
 * the processor time of client and backend per connection: the kernel handles packets in their sender's time, while
 * anything else on a busy machine lowers the rate. Needs root, nftables, conntrack, iproute2 and gcc.
 */
import { execFileSync, spawn } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { wireEntry } from "../../test/support/requests.ts"
import { type Plugin, startPlugin } from "./plugin.ts"
import { processorMicros } from "./processorTime.ts"
import { compileLoad } from "./relaySubjects.ts"
import { median, row } from "./stats.ts"

const rounds = Number(process.env["ROUNDS"] ?? 41)
/** Short, so that other load on the machine affects all subjects alike. */
const seconds = 0.25
const concurrent = 16
const firstPort = 10_001
const backendPort = 80

interface Subject {
  readonly name: string
  /** Ports called in turn, from `firstPort` on; without redirection, the backend's own port is called. */
  readonly ports: number
  readonly prepare: (at: Place) => Promise<Plugin | undefined>
}

/** The network namespace of a subject, and the third octet of its networks. */
interface Place {
  readonly namespace: string
  readonly octet: number
}

const mapped = (live: number): Subject => ({
  name: `nat mode, ${live.toLocaleString("en")} live`,
  ports: live,
  prepare: async ({ namespace, octet }) => {
    const plugin = await startPlugin(namespace)
    for (let index = 0; index < live; index++) {
      await plugin.call("MapPorts", {
        Reqs: [wireEntry(`tcp 0.0.0.0:${firstPort + index} 172.31.${octet}.2:${backendPort}`)],
        Labels: {}
      })
    }
    return plugin
  }
})

/** Each service has the same backends: addresses of one host. */
const services: Subject = {
  name: "1,000 services of 10 backends",
  ports: 1000,
  prepare: async ({ namespace, octet }) => {
    const plugin = await startPlugin(namespace)
    for (let port = firstPort; port < firstPort + 1000; port++)
      for (let backend = 0; backend < backendsOfService; backend++)
        await plugin.call("MapPorts", {
          Reqs: [wireEntry(`tcp 0.0.0.0:${port} 172.31.${octet}.${2 + backend}:${backendPort}`)],
          Labels: { "portmapper.share": "all" }
        })
    return plugin
  }
}

const backendsOfService = 10

const loneRule: Subject = {
  name: "a lone dnat rule",
  ports: 1,
  prepare: async ({ namespace, octet }) => {
    nft(
      namespace,
      `table ip lone {
        chain prerouting {
          type nat hook prerouting priority dstnat;
          fib daddr type local tcp dport ${firstPort} dnat to 172.31.${octet}.2:${backendPort}
        }
      }`
    )
    return undefined
  }
}

const direct: Subject = { name: "no redirection", ports: 0, prepare: async () => undefined }

const subjects: ReadonlyArray<Subject> = [direct, loneRule, mapped(10), mapped(10_000), mapped(1), services]

export const run = async (): Promise<void> => {
  if (process.getuid?.() !== 0) throw new Error("bench redirect needs root, nftables and iproute2")
  const folder = mkdtempSync(join(tmpdir(), "portmapper-bench-"))
  const [client, backend] = [nameOf("client"), nameOf("backend")]
  const places = subjects.map((_, octet) => ({ namespace: nameOf(`host${octet}`), octet }))
  const namespaces = [client, backend, ...places.map(({ namespace }) => namespace)]
  const plugins: Array<Plugin> = []
  const load = compileLoad(folder)
  for (const name of namespaces) execFileSync("ip", ["netns", "add", name])
  const echo = spawn("ip", ["netns", "exec", backend, load, "echo", "0.0.0.0", `${backendPort}`])
  try {
    for (const place of places) connectUp(place, client, backend)
    for (const [index, place] of places.entries()) {
      const plugin = await subjects[index]?.prepare(place)
      if (plugin !== undefined) plugins.push(plugin)
    }
    await sleep(1000)
    print(measure(load, client, echo.pid ?? 0, places))
  } finally {
    echo.kill("SIGKILL")
    for (const plugin of plugins) plugin.stop()
    for (const name of namespaces) execFileSync("ip", ["netns", "delete", name])
    rmSync(folder, { recursive: true, force: true })
  }
}

const nameOf = (role: string) => `pmbench-${process.pid}-${role}`

const inside = (namespace: string, command: string, words: ReadonlyArray<string>, input = ""): string =>
  execFileSync("ip", ["netns", "exec", namespace, command, ...words], {
    encoding: "utf8",
    input,
    stdio: ["pipe", "pipe", "pipe"]
  })

const nft = (namespace: string, text: string) => inside(namespace, "nft", ["-f", "-"], text)

/** The client has 10.9.N.2 and 10.10.N.0/24, the backend 172.31.N.2; the host between them is .1 on both links. */
const connectUp = ({ namespace, octet }: Place, client: string, backend: string) => {
  const sh = (where: string, script: string) => inside(where, "sh", ["-ec", script])
  sh(
    namespace,
    `ip link set lo up
    ip link add outer type veth peer name outer${octet} netns ${client}
    ip link add inner type veth peer name inner${octet} netns ${backend}
    ip address add 10.9.${octet}.1/24 dev outer; ip link set outer up
    ip address add 172.31.${octet}.1/24 dev inner; ip link set inner up
    ip route add 10.10.${octet}.0/24 via 10.9.${octet}.2
    sysctl -qw net.ipv4.ip_forward=1`
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
    for host in $(seq 2 ${1 + backendsOfService}); do ip address add 172.31.${octet}.$host/24 dev inner${octet}; done
    ip route add 10.9.${octet}.0/24 via 172.31.${octet}.1
    ip route add 10.10.${octet}.0/24 via 172.31.${octet}.1`
  )
}

/** Results of each subject, by rounds. */
interface Measured {
  readonly rates: Array<number>
  /** Processor time per connection, in microseconds. */
  readonly micros: Array<number>
}

/** Connections per second in each round; the benchmark flushes conntrack before the next. */
const measure = (
  load: string,
  client: string,
  echo: number,
  places: ReadonlyArray<Place>
): ReadonlyArray<Measured> => {
  const measured = places.map((): Measured => ({ rates: [], micros: [] }))
  for (let round = 0; round <= rounds; round++)
    for (let turn = 0; turn < places.length; turn++) {
      const index =
        (round % 2 === 0 ? turn + round : places.length * 2 - turn - (round % places.length)) % places.length
      const { octet, namespace } = places[index] as Place
      const { ports } = subjects[index] as Subject
      inside(namespace, "sh", ["-c", "conntrack -F || true"])
      const [host, port] = ports === 0 ? [`172.31.${octet}.2`, backendPort] : [`10.9.${octet}.1`, firstPort]
      const words = [host, port, concurrent, seconds, Math.max(ports, 1), `10.10.${octet}.2`]
      const before = processorMicros(echo)
      const { rate, failed, done, micros } = JSON.parse(
        inside(client, load, ["connect", ...words.map(String)])
      )
      if (failed > 0) throw new Error(`${subjects[index]?.name}: ${failed} connections failed`)
      // The first round warms up.
      if (round === 0) continue
      measured[index]?.rates.push(rate)
      measured[index]?.micros.push((micros + processorMicros(echo) - before) / done)
    }
  return measured
}

const print = (measured: ReadonlyArray<Measured>) => {
  const of = (index: number, what: keyof Measured) => measured[index]?.[what] ?? []
  console.log(
    row([`new connections, ${rounds} rounds, median`, "/s", "of direct", "of the rule", "µs cpu each"])
  )
  const [ofDirect, ofRule] = [median(of(0, "rates")), median(of(1, "rates"))]
  subjects.forEach(({ name }, index) => {
    const rate = median(of(index, "rates"))
    const cells = [rate.toFixed(0), (rate / ofDirect).toFixed(2), (rate / ofRule).toFixed(2)]
    console.log(row([`  ${name}`, ...cells, median(of(index, "micros")).toFixed(1)]))
  })
  // Round by round, since other load on the machine changes from one to the next.
  const paired = (one: number, other: number, what: keyof Measured) =>
    median(of(one, what).map((value, round) => value / (of(other, what)[round] ?? Number.NaN))).toFixed(2)
  const inverse = (one: number, other: number) => paired(other, one, "micros")
  console.log(row(["paired, by rate and by processor time", "rate", "", "", "cpu"]))
  console.log(row(["  10,000 live over 10 live", paired(3, 2, "rates"), "", "", inverse(3, 2)]))
  console.log(row(["  10,000 live over the lone rule", paired(3, 1, "rates"), "", "", inverse(3, 1)]))
  console.log(row(["  services over one live port", paired(5, 4, "rates"), "", "", inverse(5, 4)]))
}
