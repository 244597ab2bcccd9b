/** Attacks on the plugin's exclusive resources: the lock on the kernel's table, the table itself, and a takeover. */
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { Effect } from "effect"
import * as Lab from "../lab/Lab.ts"
import type { Namespace } from "../lab/Namespace.ts"
import * as Plugin from "../lab/Plugin.ts"
import { type Attack, eventually, mapAgain, must, timeOf } from "./Attack.ts"

const main = "adapters/cli/main.ts"
const web = "tcp 0.0.0.0:8080 172.31.0.2:80"

/** Binds the name of the former lock, as user 65534, as soon as it is free. */
const squatter = `process.setgroups([]); process.setgid(65534); process.setuid(65534)
  const bind = () => require("net").createServer()
    .on("error", () => setTimeout(bind, 1))
    .listen("\\0portmapper-nat", () => console.log("bound"))
  bind()
  console.log("trying")`

const squat = (host: Namespace) =>
  Effect.flatMap(host.spawn(process.execPath, ["-e", squatter]), (running) =>
    running.waitForLine("trying", { timeoutMillis: 20_000 })
  )

/** Whether the kernel redirects the port: the backend sees the client's own address. */
const isRedirected = ({ client }: Lab.Lab) =>
  Effect.map(
    client.agent.tcp({ host: "10.99.0.1", port: 8080, timeoutMillis: 2000 }),
    ({ answer }) => answer?.seen?.address === "10.99.0.2"
  )

const serveWeb = Effect.fnUntraced(function* (lab: Lab.Lab) {
  yield* lab.c1.agent.echo({ protocol: "tcp", port: 80 })
  const plugin = yield* Plugin.start(lab.host)
  yield* must("the plugin maps", (yield* plugin.map([web])).status === 200)
  yield* must("the kernel redirects", yield* isRedirected(lab))
  return plugin
})

/** By users who may not change the table, before root's plugin starts. */
export const squatLock: Attack = Effect.gen(function* () {
  const lab = yield* Lab.make()
  yield* squat(lab.host)
  yield* Plugin.start(lab.host, { wrapper: ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] })
  yield* serveWeb(lab)
  return []
})

/** By the same users, and by another plugin of root with another state, while a takeover hands the table over. */
export const raceTakeover: Attack = Effect.gen(function* () {
  const lab = yield* Lab.make()
  const { host } = lab
  const first = yield* serveWeb(lab)
  yield* squat(host)
  const folder = yield* Plugin.temporaryFolder
  const rival = yield* host.spawn("sh", [
    ...["-c", 'while :; do "$@"; done', "sh", process.execPath, main, "serve"],
    ...["--state", join(folder, "state"), "--socket", join(folder, "rival.sock")]
  ])
  yield* rival.waitForLine("portmapper: ", { timeoutMillis: 60_000 })
  let last = first
  for (let turn = 0; turn < 2; turn++)
    last = yield* Plugin.start(host, { folder: first.folder, arguments: ["--takeover"] })
  const won = rival.lines("stderr").some((line) => line.startsWith("listening on"))
  const { failures } = yield* mapAgain(last, 1)
  return [
    ...(won ? ["another plugin serves from the middle of a takeover"] : []),
    ...((yield* isRedirected(lab)) ? [] : ["the published port is not redirected any more"]),
    ...failures
  ]
})

/** By other tools of root. */
export const flushRuleset: Attack = Effect.gen(function* () {
  const lab = yield* Lab.make()
  yield* serveWeb(lab)
  const through: Array<string> = []
  for (const command of ["flush ruleset", "delete table inet portmapper"]) {
    yield* lab.host.exec("nft", command.split(" "))
    // A kernel before 6.9 lets other processes remove the table, and the plugin puts it back.
    if (!(yield* eventually(isRedirected(lab)))) through.push(`nft ${command} ends what is published`)
  }
  return through
})

export const resetLive: Attack = Effect.gen(function* () {
  const lab = yield* Lab.make()
  const { process: serving } = yield* serveWeb(lab)
  const folder = yield* Plugin.temporaryFolder
  const reset = yield* lab.host.exec(
    process.execPath,
    [
      ...[main, "reset", "--yes", "--state", join(folder, "state")],
      ...["--socket", join(folder, "other.sock"), "--spec-dir", folder]
    ],
    { timeoutMillis: 60_000 }
  )
  return [
    ...(reset.code === 1 ? [] : [`reset ends with ${reset.code}: ${reset.stdout}${reset.stderr}`]),
    ...(reset.stderr.includes(`process ${serving.pid}`)
      ? []
      : [`reset does not name the holder: ${reset.stderr}`]),
    ...((yield* isRedirected(lab)) ? [] : ["the published port is not redirected any more"])
  ]
})

/** In each step of a takeover for which the running plugin waits. */
export const freezeSuccessor = (note: (text: string) => void): Attack =>
  Effect.gen(function* () {
    const lab = yield* Lab.make()
    const plugin = yield* serveWeb(lab)
    const through: Array<string> = []
    for (const step of ["said hello", "was accepted", "got everything"]) {
      const half = fileURLToPath(new URL("../support/halfSuccessor.ts", import.meta.url))
      const lines = plugin.process.lines("stderr").length
      yield* lab.host.spawn(process.execPath, [
        half,
        join(plugin.folder, "state", "handover.sock"),
        step,
        "freeze"
      ])
      yield* plugin.process.waitForLine(/process \d+ takes over/, {
        ...{ stream: "stderr", after: lines, timeoutMillis: 60_000 }
      })
      const { millis, failure } = yield* timeOf(plugin.map([web]))
      if (failure !== "") through.push(`MapPorts ${failure}, with a successor that froze after it ${step}`)
      note(`MapPorts in ${millis} ms`)
    }
    return (yield* isRedirected(lab))
      ? through
      : [...through, "the published port is not redirected any more"]
  })
