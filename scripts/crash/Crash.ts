/**
 * The real plugin in a lab, killed at random instants while clients map and unmap, and started again on the same state.
 * After each start what it lists is held against what was answered, the kernel's table, the bound sockets and traffic.
 */
import { setTimeout as sleep } from "node:timers/promises"
import { Effect, Exit, type Scope } from "effect"
import * as Lab from "../../test/lab/Lab.ts"
import type { Namespace } from "../../test/lab/Namespace.ts"
import { contents } from "../../test/lab/Nft.ts"
import * as Plugin from "../../test/lab/Plugin.ts"
import { listening } from "../../test/lab/Probe.ts"
import type { Running } from "../../test/lab/Running.ts"
import { backendPort, type Calls, clientCount, containers, ephemeral, work } from "./Clients.ts"
import { type Binding, doubled, keyOf, Ledger, type Listed, textOf } from "./Ledger.ts"
import { Random } from "./Random.ts"

export interface CrashOptions {
  readonly seed: number
  readonly kills: number
  /** No further kill is begun after so long. */
  readonly withinMillis?: number
  /** What Node runs; the sources by default. */
  readonly program?: ReadonlyArray<string>
  readonly onKill?: (tally: Tally) => void
}

export interface Tally {
  kills: number
  /** Kills before the plugin served, in the middle of its restore. */
  killedStarting: number
  /** Calls that were answered, and those that the kill left without an answer. */
  answered: number
  unanswered: number
  /** What was found after a start and no answer had named; nobody's way is blocked by it. */
  unconfirmed: number
  /** Answered, but killed before that was recorded: found unconfirmed, and confirmed by asking again. */
  unrecorded: number
  /** Each with the number of kills before it; none is right. */
  readonly lost: Array<string>
  readonly doubled: Array<string>
  readonly blocking: Array<string>
}

export const crash = Effect.fn("crash")(function* (options: CrashOptions) {
  const random = new Random(options.seed)
  const lab = yield* Lab.make()
  yield* echoes(lab)
  const folder = yield* Plugin.temporaryFolder
  const ledger = new Ledger()
  const tally: Tally = {
    kills: 0,
    killedStarting: 0,
    answered: 0,
    unanswered: 0,
    unconfirmed: 0,
    unrecorded: 0,
    lost: [],
    doubled: [],
    blocking: []
  }
  const begun = performance.now()
  const world: World = { lab, folder, ledger, tally, random, options, startMillis: { usual: 1000 } }
  while (tally.kills < options.kills && performance.now() - begun < (options.withinMillis ?? Infinity)) {
    if (tally.kills > 0 && random.chance(0.15)) yield* Effect.scoped(killStarting(world))
    else yield* Effect.scoped(live(world))
    options.onKill?.(tally)
  }
  yield* Effect.scoped(Effect.flatMap(start(world), (plugin) => compare(world, plugin)))
  return tally
})

interface World {
  readonly lab: Lab.Lab
  readonly folder: string
  readonly ledger: Ledger
  readonly tally: Tally
  readonly random: Random
  readonly options: CrashOptions
  readonly startMillis: { usual: number }
}

const start = Effect.fnUntraced(function* (
  { lab, folder, options }: World,
  onSpawn?: (running: Running) => void
) {
  return yield* Plugin.start(lab.host, {
    folder,
    arguments: ["--ephemeral", `${ephemeral.first}-${ephemeral.last}`],
    startMillis: 60_000,
    ...(options.program === undefined ? {} : { program: options.program }),
    ...(onSpawn === undefined ? {} : { onSpawn })
  })
})

/** One life: looked at, then used by all clients at once until it is killed. */
const live = Effect.fnUntraced(function* (world: World) {
  const { ledger, tally, random, startMillis } = world
  const begun = performance.now()
  const plugin = yield* start(world)
  startMillis.usual = performance.now() - begun
  yield* compare(world, plugin)
  const calls: Calls = { answered: 0, unanswered: 0, refused: [] }
  const workers = Array.from({ length: clientCount }, (_, client) =>
    work(client, plugin.socket, new Random(random.below(2 ** 31)), ledger, calls)
  )
  yield* Effect.promise(() => sleep(5 + 700 * random.next() ** 2))
  yield* kill(world, plugin.process)
  yield* Effect.promise(() => Promise.all(workers))
  tally.answered += calls.answered
  tally.unanswered += calls.unanswered
  tally.blocking.push(...calls.refused.map((text) => `${tally.kills}: ${text}`))
})

/** A life that ends at any moment of its start, or just after. */
const killStarting = Effect.fnUntraced(function* (world: World) {
  const { random, startMillis, tally } = world
  const after = random.next() * startMillis.usual
  let killed = false
  const exit = yield* Effect.exit(
    start(world, (running) => {
      setTimeout(() => {
        killed = Effect.runSync(running.kill("SIGKILL"))
      }, after)
    }).pipe(Effect.flatMap(({ process }) => process.wait()))
  )
  if (!killed && Exit.isFailure(exit)) yield* exit
  tally.kills++
  tally.killedStarting++
})

const kill = Effect.fnUntraced(function* ({ tally }: World, process: Running) {
  yield* process.kill("SIGKILL")
  yield* process.wait()
  tally.kills++
})

/** Everything that can be seen of the plugin against what was answered; and what was not answered gives way. */
const compare = Effect.fnUntraced(function* (world: World, plugin: Plugin.Plugin) {
  const { lab, ledger, tally, random } = world
  const at = (text: string) => `${tally.kills}: ${text}`
  const listed = yield* list(plugin)
  ledger.settle(listed)
  tally.lost.push(...ledger.lost(listed).map(at))
  tally.doubled.push(...doubled(listed).map(at))

  const serving = listed.filter(({ State }) => State !== "conflicted")
  const table = Object.values(yield* contents(lab.host)).flat()
  const differ = (what: string, found: ReadonlyArray<string>, wanted: ReadonlyArray<string>) => {
    tally.lost.push(...without(wanted, found).map((text) => at(`${what} lacks ${text}`)))
    tally.doubled.push(...without(found, wanted).map((text) => at(`${what} has ${text}`)))
  }
  differ("the table", table, serving.map(elementOf))
  differ("what is bound", yield* listening(lab.host, { pid: plugin.process.pid }), serving.map(keyOf))
  for (const binding of random.some([...ledger.answered.values()], 3))
    tally.lost.push(...(yield* traffic(lab, binding)).map(at))

  for (const one of listed.filter(({ State }) => State === "unconfirmed")) {
    const answered = ledger.answered.get(keyOf(one))
    if (answered === undefined) continue
    tally.unrecorded++
    const again = yield* mapExactly(plugin, answered, answered)
    if (again !== "") tally.lost.push(at(`asked again for ${textOf(answered)}: ${again}`))
  }
  const unanswered = ledger.unanswered(listed)
  tally.unconfirmed += unanswered.length
  for (const one of unanswered) {
    // Half of them stay, so that ranges fill up with what nobody will ever unmap.
    if (one.State === "unconfirmed" && random.chance(0.5)) continue
    const other = otherBackend(one)
    const refusal = yield* mapExactly(plugin, one, other)
    if (refusal !== "") {
      tally.blocking.push(at(`${textOf(one)} (${one.State}): ${refusal}`))
      continue
    }
    const claimed = { ...one, ...other }
    ledger.map([claimed])
    tally.lost.push(...(yield* traffic(lab, claimed)).map(at))
    ledger.unmapBegins([claimed])
    const { status, body } = yield* plugin.call("UnmapPorts", { PortBindings: [claimed], Labels: {} })
    if (status === 200) ledger.unmapped([claimed])
    else tally.blocking.push(at(body))
  }
})

const list = (plugin: Plugin.Plugin) =>
  Effect.map(
    plugin.call("ListPorts", {}),
    ({ body }) => (JSON.parse(body) as { readonly Mappings: ReadonlyArray<Listed> }).Mappings
  )

/** What it was refused with; empty where it was granted. */
const mapExactly = (
  plugin: Plugin.Plugin,
  { Proto, FrontendIP, FrontendPort }: Binding,
  { BackendIP, BackendPort }: Pick<Binding, "BackendIP" | "BackendPort">
) =>
  Effect.map(
    plugin.call("MapPorts", {
      Reqs: [{ Proto, FrontendIP, FrontendPort, FrontendPortEnd: FrontendPort, BackendIP, BackendPort }],
      Labels: {}
    }),
    ({ status, body }) => (status === 200 ? "" : body.trim())
  )

const otherBackend = ({ BackendIP, BackendPort }: Binding) => {
  const [c1, c2] = containers
  const other = BackendIP === c1.ipv4 || BackendIP === c1.ipv6 ? c2 : c1
  return { BackendIP: BackendIP.includes(":") ? other.ipv6 : other.ipv4, BackendPort }
}

const elementOf = (binding: Binding): string => {
  const { Proto, FrontendIP, FrontendPort, BackendIP, BackendPort } = binding
  const frontend = `${Proto === 6 ? "tcp" : "udp"} . ${FrontendPort}`
  const any = FrontendIP === "0.0.0.0" || FrontendIP === "::"
  return `${any ? "" : `${FrontendIP} . `}${frontend} : ${BackendIP} . ${BackendPort}`
}

const without = (texts: ReadonlyArray<string>, others: ReadonlyArray<string>) => {
  const known = new Set(others)
  return texts.filter((text) => !known.has(text))
}

/** What is wrong with a mapping's traffic, from the outside; nothing where its own backend answers. */
const traffic = Effect.fnUntraced(function* ({ client }: Lab.Lab, binding: Binding) {
  const { Proto, FrontendIP, FrontendPort: port, BackendIP } = binding
  const host = FrontendIP.includes(":") ? "fd99::1" : "10.99.0.1"
  const container = containers.find(({ ipv4, ipv6 }) => ipv4 === BackendIP || ipv6 === BackendIP)
  const wanted = `${container?.name}-${binding.BackendPort}`
  const asked = { host, port, timeoutMillis: 2000 }
  const seen =
    Proto === 6
      ? Effect.map(
          client.agent.tcp({ ...asked, close: "reset" }),
          ({ outcome, answer }) => answer?.who ?? outcome
        )
      : Effect.map(client.agent.udp(asked), ({ outcome, replies }) => replies[0]?.who ?? outcome)
  const who = yield* seen
  return who === wanted ? [] : [`${textOf(binding)} is served by ${who}, not ${wanted}`]
})

/** Each container answers on the backend port of each client, with its name and the port. */
const echoes = ({ get }: Lab.Lab): Effect.Effect<void, unknown, Scope.Scope> =>
  Effect.forEach(
    containers.flatMap(({ name }) =>
      (["tcp", "udp"] as const).flatMap((protocol) =>
        ["0.0.0.0", "::"].flatMap((host) =>
          Array.from({ length: clientCount }, (_, client) => ({
            name,
            protocol,
            host,
            port: backendPort(client)
          }))
        )
      )
    ),
    ({ name, protocol, host, port }) =>
      (get(name) as Namespace).agent.echo({ protocol, host, port, who: `${name}-${port}` }),
    { discard: true }
  )
