/**
 * What `MapPorts` and `UnmapPorts` cost a keep-alive client over the Unix socket in nat mode, with 10 and with 10,000
 * mappings live. Two plugins run side by side, each in a network namespace of its own, and are asked in turn.
 */
import { execFileSync } from "node:child_process"
import { type Plugin, startPlugin } from "./plugin.ts"
import { millis, row, summarize } from "./stats.ts"

const rounds = 40
const callsPerRound = 50

export const run = async (): Promise<void> => {
  if (process.getuid?.() !== 0) throw new Error("bench map needs root, nftables and iproute2")
  const few = await start("few", 10)
  const many = await start("many", 10_000)
  try {
    const samples = { few: newSamples(), many: newSamples() }
    for (const warm of [few, many]) await measure(warm, newSamples(), 300)
    for (let round = 0; round < rounds; round++) {
      await measure(few, samples.few, callsPerRound)
      await measure(many, samples.many, callsPerRound)
    }
    console.log(row(["over the Unix socket, nat mode", "p50", "p99"]))
    const result = Object.fromEntries(
      (["few", "many"] as const).flatMap((which) =>
        (["map", "unmap"] as const).map((call) => {
          const summary = summarize(samples[which][call])
          const live = which === "few" ? "10" : "10,000"
          console.log(
            row([
              `${call === "map" ? "MapPorts" : "UnmapPorts"}, ${live} live`,
              millis(summary.p50),
              millis(summary.p99)
            ])
          )
          return [`${which} ${call}`, summary.p50] as const
        })
      )
    )
    const ratio = (call: string) => ((result[`many ${call}`] ?? 0) / (result[`few ${call}`] ?? 1)).toFixed(2)
    console.log(row(["10,000 live over 10 live, p50", `map ${ratio("map")}`, `unmap ${ratio("unmap")}`]))
  } finally {
    few.stop()
    many.stop()
  }
}

const newSamples = () => ({ map: [] as number[], unmap: [] as number[] })

const measure = async (plugin: Plugin, samples: ReturnType<typeof newSamples>, calls: number) => {
  for (let index = 0; index < calls; index++) {
    const begun = process.hrtime.bigint()
    const { PortBindings } = await plugin.call("MapPorts", ask(40_000 + (index % 1000)))
    const mapped = process.hrtime.bigint()
    await plugin.call("UnmapPorts", { PortBindings, Labels: {} })
    samples.map.push(Number(mapped - begun) / 1000)
    samples.unmap.push(Number(process.hrtime.bigint() - mapped) / 1000)
  }
}

const ask = (port: number) => ({
  Reqs: [
    {
      Proto: 6,
      BackendIP: "172.31.0.2",
      BackendPort: 80,
      FrontendIP: "0.0.0.0",
      FrontendPort: port,
      FrontendPortEnd: port
    }
  ],
  Labels: {}
})

const start = async (name: string, live: number): Promise<Plugin> => {
  const namespace = `pmbench-${process.pid}-${name}`
  execFileSync("ip", ["netns", "add", namespace])
  const remove = () => void execFileSync("ip", ["netns", "delete", namespace])
  try {
    execFileSync("ip", ["-n", namespace, "link", "set", "lo", "up"])
    const { call, stop } = await startPlugin(namespace)
    for (let port = 1; port <= live; port++) await call("MapPorts", ask(10_000 + port))
    return {
      call,
      stop: () => {
        stop()
        remove()
      }
    }
  } catch (error) {
    remove()
    throw error
  }
}
