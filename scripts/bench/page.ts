/**
 * What fifty open pages cost a plugin with 10,000 mappings, in processor time and in the time of calls. Two plugins run
 * side by side, both with `--page`, one of them without a page open; they are measured in turns.
 *
 * Needs root, nftables and iproute2, and the page built (`npm run build`).
 */
import * as Http from "node:http"
import * as Path from "node:path"
import { measureCalls, newSamples, type Samples } from "./calls.ts"
import { type Plugin, startLive } from "./plugin.ts"
import { processorMicros } from "./processorTime.ts"
import { printTimes, ratio, row } from "./stats.ts"

const live = 10_000
const pages = 50
const restMillis = 15_000
const rounds = 40
const callsPerRound = 50

export const run = async (): Promise<void> => {
  if (process.getuid?.() !== 0) throw new Error("bench page needs root, nftables and iproute2")
  const plugins: Array<Plugin> = []
  try {
    for (const name of ["with", "without"]) plugins.push(await startLive(name, live, pageOptions))
    const [watched, alone] = plugins
    if (watched === undefined || alone === undefined) throw new Error("no plugins")
    const opened = await Promise.all(Array.from({ length: pages }, () => openPage(watched)))
    await atRest(opened, [watched, alone])
    const samples = [newSamples(), newSamples()] as const
    for (const plugin of plugins) await measure(plugin, newSamples(), 1000)
    for (let round = 0; round < rounds; round++) {
      await measure(watched, samples[0], callsPerRound)
      await measure(alone, samples[1], callsPerRound)
    }
    print(samples)
  } finally {
    for (const { stop } of plugins) stop()
  }
}

/** Where its page is. */
const pageSocket = (folder: string) => Path.join(folder, "page.sock")

const pageOptions = (folder: string) => ["--page", `unix:${pageSocket(folder)}`]

interface Opened {
  events: number
  bytes: number
}

/** Resolves once it has the whole state, and what `doctor` found, which a page that opens has looked for. */
const openPage = ({ folder }: Plugin): Promise<Opened> =>
  new Promise((resolve, reject) => {
    const opened: Opened = { events: 0, bytes: 0 }
    const options = { path: "/api/events", headers: { Host: "localhost" }, agent: false }
    Http.get({ socketPath: pageSocket(folder), ...options }, (response) => {
      let end = ""
      let isChecked = false
      response.setEncoding("latin1").on("data", (chunk: string) => {
        opened.bytes += chunk.length
        const text = end + chunk
        end = text.slice(-20)
        isChecked ||= text.includes('"checks":{"at":')
        if (!text.endsWith("\n\n") || opened.bytes < live) return
        opened.events++
        if (isChecked) resolve(opened)
      })
    }).on("error", reject)
  })

/** The processor time of both while nothing is called. */
const atRest = async (opened: ReadonlyArray<Opened>, plugins: ReadonlyArray<Plugin>) => {
  const before = opened.map(({ events }) => events)
  const used = plugins.map(({ pid }) => processorMicros(pid))
  const begun = performance.now()
  await new Promise((resolve) => setTimeout(resolve, restMillis))
  const micros = (performance.now() - begun) * 1000
  const shares = plugins.map(({ pid }, index) => (processorMicros(pid) - (used[index] ?? 0)) / micros)
  const events = opened.map((one, index) => one.events - (before[index] ?? 0))
  const percent = (share = 0) => `${(share * 100).toFixed(2)} %`
  console.log(row([`${live} mappings at rest`, "processor"]))
  console.log(row([`${pages} pages open`, percent(shares[0])]))
  console.log(row(["no page open", percent(shares[1])]))
  console.log(row(["a page", "", `${Math.min(...events)} changes in ${restMillis / 1000} s`]))
}

const measure = ({ call }: Plugin, samples: Samples, calls: number) =>
  measureCalls(call, samples, calls, (index) => 40_000 + (index % 1000))

const print = ([watched, alone]: readonly [Samples, Samples]): void => {
  console.log(row(["over the Unix socket, nat mode", "p50", "p99"]))
  const map = printTimes(`MapPorts, ${pages} pages open`, watched.map)
  const mapAlone = printTimes("MapPorts, no page open", alone.map)
  const unmap = printTimes(`UnmapPorts, ${pages} pages open`, watched.unmap)
  const unmapAlone = printTimes("UnmapPorts, no page open", alone.unmap)
  console.log(
    row(["pages over none, p50", `map ${ratio(map, mapAlone)}`, `unmap ${ratio(unmap, unmapAlone)}`])
  )
}
