/**
 * New connections per second through a kernel redirection: with 1, 10 and 10,000 mappings live, each port called in
 * turn, beside a single hand-written `dnat` rule and a route without any redirection. Needs root, nftables, conntrack,
 * iproute2 and gcc.
 */
import { wireEntry } from "../../test/support/requests.ts"
import { backendPort, firstPort, inside, type Measured, measureHosts, paired, type Subject } from "./hosts.ts"
import { startPlugin } from "./plugin.ts"
import { median, row } from "./stats.ts"

const rounds = Number(process.env["ROUNDS"] ?? 41)

export const mapped = (live: number): Subject => ({
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

const loneRule: Subject = {
  name: "a lone dnat rule",
  ports: 1,
  prepare: async ({ namespace, octet }) => {
    inside(
      namespace,
      "nft",
      ["-f", "-"],
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

const subjects = [direct, loneRule, mapped(10), mapped(10_000), mapped(1)]

export const run = async (): Promise<void> => {
  if (process.getuid?.() !== 0) throw new Error("bench redirect needs root, nftables and iproute2")
  print(await measureHosts(subjects, { rounds, backends: 1 }))
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
  const pair = (title: string, one: number, other: number) =>
    console.log(
      row([
        `  ${title}`,
        paired(of(one, "rates"), of(other, "rates")),
        "",
        "",
        paired(of(other, "micros"), of(one, "micros"))
      ])
    )
  console.log(row(["paired, by rate and by processor time", "rate", "", "", "cpu"]))
  pair("10,000 live over 10 live", 3, 2)
  pair("10,000 live over the lone rule", 3, 1)
}
