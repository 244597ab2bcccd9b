/** Attacks by what the plugin reads: requests, messages and existing folders. */
import { chmodSync, chownSync, lchownSync, mkdirSync, readdirSync, readFileSync, symlinkSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { Effect, Fiber } from "effect"
import * as Lab from "../lab/Lab.ts"
import * as Plugin from "../lab/Plugin.ts"
import { oversized } from "../support/oversized.ts"
import { askUnread, wideBatch } from "../support/unread.ts"
import { type Attack, mapAgain, must } from "./Attack.ts"

const main = "adapters/cli/main.ts"

/** Each fills one request, while another client maps and unmaps. */
export const askTooMuch = (note: (text: string) => void): Attack =>
  Effect.gen(function* () {
    const { host } = yield* Lab.make()
    // There is no Engine; the plugin refuses to follow a container before it calls one.
    const plugin = yield* Plugin.start(host, { arguments: ["--watch", "--engine", "unix:///nonexistent"] })
    const through: Array<string> = []
    let slowest = 0
    for (const { title, method, body, verdict } of oversized) {
      const asking = yield* Effect.forkChild(plugin.call(method, body), { startImmediately: true })
      const others = yield* mapAgain(plugin, 1)
      slowest = Math.max(slowest, others.slowest)
      through.push(...others.failures.map((failure) => `${failure} during ${title}`))
      const answer = yield* Fiber.join(asking)
      const { Err = "" } = JSON.parse(answer.body) as { readonly Err?: string }
      const isExpected =
        verdict === "granted" ? answer.status === 200 : answer.status === 400 && Err.startsWith(verdict)
      if (!isExpected) through.push(`${title}: ${answer.status} ${Err.slice(0, 100)}`)
    }
    const listed = (yield* plugin.call("ListPorts", {})).body.length
    if (listed > 100_000) through.push(`the list of few mappings has ${listed} bytes`)
    note(`others' MapPorts in ${slowest} ms`)
    return through
  })

/** 700 lists of 4,000 mappings. */
export const readNothing = (note: (text: string) => void): Attack =>
  Effect.gen(function* () {
    const { host } = yield* Lab.make()
    const plugin = yield* Plugin.start(host)
    for (let first = 0; first < 4000; first += 1000) {
      const Groups = Array.from({ length: 1000 }, (_, index) => routed(first + index))
      yield* must("the plugin maps", (yield* plugin.call("MapGroups", { Groups })).status === 200)
    }
    const listed = (yield* plugin.call("ListPorts", {})).body.length
    yield* must("the list is long", listed > 500_000)
    const before = memoryOf(plugin.process.pid)
    const unread = yield* Effect.acquireRelease(
      Effect.sync(() => askUnread({ path: plugin.socket }, 700)),
      ({ socket }) => Effect.sync(() => socket.destroy())
    )
    const others = yield* mapAgain(plugin, 20)
    const grown = memoryOf(plugin.process.pid) - before
    unread.socket.destroy()
    note(`others' MapPorts in ${others.slowest} ms, ${grown} MB more`)
    return grown < 100 ? others.failures : [...others.failures, `the plugin grows by ${grown} MB`]
  })

const routed = (index: number) => ({
  Reqs: [
    {
      ...{ Proto: 6, FrontendIP: "0.0.0.0", FrontendPort: 0, FrontendPortEnd: 0 },
      ...{ BackendIP: `172.31.${index >> 8}.${index & 255}`, BackendPort: 80 }
    }
  ],
  Labels: { "portmapper.mode": "routed" }
})

const memoryOf = (pid: number): number =>
  Math.round(Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) / 1024)

/** A line of JSON-RPC with half a million numbers, and the next call of the session. */
export const sendWideBatch: Attack = Effect.gen(function* () {
  const { client } = yield* Lab.make()
  const { stdout } = yield* client.exec(process.execPath, [main, "rpc", "--memory"], {
    input: `${wideBatch(1024 * 1024)}\n{"jsonrpc":"2.0","id":1,"method":"Plugin.Activate"}\n`,
    timeoutMillis: 60_000
  })
  const [first = "", second = ""] = stdout.split("\n")
  return [
    ...(first.length < 10_000 ? [] : [`it is answered by ${first.length} bytes`]),
    ...(second.includes("PortMapper") ? [] : ["the next call is not answered"])
  ]
})

const nobody = 65_534
const another = 12_345

/** As user 65534, who can read this checkout in any folder. */
const asNobody = [
  ...["setpriv", `--reuid=${nobody}`, `--regid=${nobody}`, "--clear-groups"],
  ...["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]
]

/** What a start without `--socket` and `--state` may find in place of its runtime folder. */
const prepared: Readonly<Record<string, (path: string) => void>> = {
  "a folder of another user": (path) => {
    mkdirSync(path)
    chmodSync(path, 0o777)
    chownSync(path, another, another)
  },
  "a link of another user": (path) => {
    mkdirSync(`${path}.theirs`)
    chmodSync(`${path}.theirs`, 0o777)
    symlinkSync(`${path}.theirs`, path)
    lchownSync(path, another, another)
  }
}

export const prepareFolder: Attack = Effect.gen(function* () {
  const { host } = yield* Lab.make()
  const through: Array<string> = []
  for (const [title, prepare] of Object.entries(prepared))
    for (const [variable, below] of [
      ["TMPDIR", `portmapper-${nobody}`],
      ["XDG_RUNTIME_DIR", "portmapper"]
    ] as const) {
      const folder = yield* Plugin.temporaryFolder
      chmodSync(folder, 0o1777)
      const path = join(folder, below)
      prepare(path)
      const [command = "", ...rest] = [...asNobody, process.execPath, main, "serve"]
      const serving = yield* host.spawn(command, rest, {
        env: { XDG_RUNTIME_DIR: undefined, [variable]: folder }
      })
      yield* serving.waitForLine(/^(listening on|portmapper: )/, { stream: "stderr", timeoutMillis: 60_000 })
      const said = serving.lines("stderr").join("\n")
      if (said.includes("listening on")) through.push(`${title} in $${variable} is served in`)
      else if (!said.includes(path)) through.push(`${title} in $${variable} is not named: ${said}`)
      yield* serving.stop
      if (readdirSync(path).length > 0) through.push(`${title} in $${variable} is written to`)
    }
  return through
})

export const askInDisguise: Attack = Effect.gen(function* () {
  const { host } = yield* Lab.make()
  const folder = yield* Plugin.temporaryFolder
  const plugin = yield* Plugin.start(host, {
    folder,
    arguments: ["--tcp", "127.0.0.1:7000", "--spec-dir", folder]
  })
  const asker = fileURLToPath(new URL("asker.ts", import.meta.url))
  const wrong = yield* host.check(process.execPath, [asker, plugin.socket, "7000"], { timeoutMillis: 60_000 })
  return wrong.split("\n").filter((line) => line !== "")
})
