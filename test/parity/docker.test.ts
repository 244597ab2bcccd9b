/**
 * A label beside `-p` on one stock Engine: the same containers are published both ways, on ports of their own, and
 * every row asks both with a payload.
 */
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { docker, inContainer, leaveContainer, prepareImages, type Reached } from "../lab/Containers.ts"
import * as Dockerd from "../lab/Dockerd.ts"
import { describeLab } from "../lab/describeLab.ts"
import * as Lab from "../lab/Lab.ts"
import type { Namespace } from "../lab/Namespace.ts"
import * as Plugin from "../lab/Plugin.ts"
import { doctor } from "../serve/doctor.ts"
import { until } from "../support/until.ts"
import { ask, both, closed, compare, type Row, reached, type Seen } from "./Matrix.ts"

/** Addresses of the host: on its wire to the client, and of its bridges. */
const outside = "10.99.0.1"
const gateways = { bridge: "172.17.0.1", front: "172.20.0.1", back: "172.21.0.1" }

interface Container {
  readonly network: string
  /** Connected after its start. */
  readonly also?: string
  readonly labels?: Readonly<Record<string, string>>
  /** Nothing listens in it. */
  readonly isMute?: true
}

/** Each is published by `-p` and by a label; those of `clients` are not. */
const containers: Readonly<Record<string, Container>> = {
  web: { network: "front" },
  mute: { network: "front", isMute: true },
  next: { network: "front" },
  local: { network: "bridge" },
  six: { network: "six" },
  inner: { network: "inner" },
  relayed: { network: "inner", labels: { "portmapper.mode": "proxy" } },
  "inner-zeta": { network: "inner", also: "zeta" },
  "zeta-alpha": { network: "zeta", also: "alpha" },
  "alpha-inner": { network: "alpha", also: "inner" }
}
const clients = { "from-front": "front", "from-back": "back", "from-bridge": "bridge" }
const names = Object.keys(containers)

const sides = ["reference", "ours"] as const
type Side = (typeof sides)[number]

const portOf = (name: string, side: Side): number => (side === "ours" ? 9000 : 8000) + names.indexOf(name)

interface World {
  readonly host: Namespace
  readonly client: Namespace
  readonly dockerd: Dockerd.Dockerd
  /** By their names; a restarted one has another namespace. */
  readonly inside: Map<string, Reached>
}

const networks: ReadonlyArray<ReadonlyArray<string>> = [
  ["--subnet=172.20.0.0/16", "front"],
  ["--subnet=172.21.0.0/16", "back"],
  ["--internal", "inner"],
  ["alpha"],
  ["zeta"],
  ["--opt", "com.docker.network.bridge.host_binding_ipv4=::1", "six"]
]

const makeWorld = Effect.gen(function* () {
  const { host, client } = yield* Lab.make({
    network: { ipv4: "172.31.0.1/24", containers: {} },
    bridgeNetfilter: true
  })
  const dockerd = yield* Dockerd.start(host, { bridge: true, iptables: true, args: ["--ip=127.0.0.1"] })
  yield* Effect.addFinalizer(() => Effect.ignore(docker(dockerd, ["rm", "--force", ...all])))
  yield* prepareImages(dockerd)
  const plugin = yield* Plugin.start(host, {
    arguments: ["--watch", "--engine", `unix://${dockerd.socket}`]
  })
  for (const network of networks) yield* docker(dockerd, ["network", "create", ...network])
  yield* Effect.forEach(names, (name) => publish(dockerd, name), { concurrency: 2 })
  for (const [name, network] of Object.entries(clients))
    yield* leaveContainer(dockerd, name, { args: [`--network=${network}`], ports: [] })
  const world: World = { host, client, dockerd, inside: new Map() }
  for (const name of all) yield* enter(world, name)
  yield* until(
    mappings(plugin),
    (listed) => new Set(listed.map(({ FrontendPort }) => FrontendPort)).size === names.length
  )
  return { world, plugin }
})

const all = [...names, ...Object.keys(clients)]

const publish = Effect.fnUntraced(function* (dockerd: Dockerd.Dockerd, name: string) {
  const { network, also, labels } = containers[name] ?? assert.fail(name)
  const ports = (side: Side) => ["tcp", "udp"].map((protocol) => `${portOf(name, side)}:80/${protocol}`)
  yield* leaveContainer(dockerd, name, {
    args: [`--network=${network}`, ...ports("reference").flatMap((port) => ["-p", port])],
    labels: { "portmapper.publish": ports("ours").join(","), ...labels },
    ports: []
  })
  if (also !== undefined) yield* docker(dockerd, ["network", "connect", also, name])
})

/** Starts an agent in a container, and its service. */
const enter = Effect.fnUntraced(function* ({ dockerd, inside }: World, name: string) {
  const container = yield* inContainer(dockerd, name)
  inside.set(name, container)
  if (containers[name]?.isMute === true) return
  for (const protocol of both) yield* container.agent.echo({ protocol, port: 80 })
})

interface Listed {
  readonly FrontendPort: number
  readonly Labels: Readonly<Record<string, string>>
  readonly State: string
}

const mappings = (plugin: Plugin.Plugin) =>
  Effect.map(
    plugin.call("ListPorts", {}),
    ({ body }) => (JSON.parse(body) as { readonly Mappings: ReadonlyArray<Listed> }).Mappings
  )

type Way = Pick<Row<World, Side>, "wanted" | "reference" | "before"> & {
  readonly from?: (world: World) => Reached
  readonly protocol?: "tcp" | "udp"
  readonly source?: string
  readonly sourcePort?: number
}

/** One exchange with a container's port at an address. */
const row = (report: string, what: string, name: string, host: string, way: Way): Row<World, Side> => {
  const { from = ({ client }: World) => client, wanted, reference = wanted, before, ...asked } = way
  return {
    ...{ report, what: `${what}${asked.protocol === "udp" ? ", UDP" : ""}`, wanted, reference },
    ...(before === undefined ? {} : { before }),
    look: (world, side) =>
      ask(from(world), name, {
        ...{ host, port: portOf(name, side), ...asked },
        isWanted: !(side === "ours" ? wanted : reference).includes("silence")
      })
  }
}

/** Waits until the watch has followed a change of the container. */
const isFollowed = ({ client }: World, name: string, seen: ReadonlyArray<Seen>) =>
  until(ask(client, name, { host: outside, port: portOf(name, "ours") }), (cell) => seen.includes(cell.seen))

const restart = (name: string) => (world: World) =>
  docker(world.dockerd, ["restart", name]).pipe(
    Effect.andThen(enter(world, name)),
    Effect.andThen(isFollowed(world, name, reached))
  )

/** The client's source ports of the flows that outlive their container. */
const steady = { tcp: 5000, udp: 5001 }

/** Another container gets the ports, while neither end of the flows to the first sends a last packet. */
const replace = (name: string) =>
  Effect.fnUntraced(function* (world: World) {
    const { client, dockerd } = world
    for (const side of sides) {
      const to = { host: outside, port: portOf(name, side) }
      yield* client.agent.transfer({ ...to, sourcePort: steady.tcp })
      yield* ask(client, name, { ...to, protocol: "udp", sourcePort: steady.udp })
    }
    yield* client.sh(
      `nft "table inet cut { chain out { type filter hook output priority 0; tcp sport ${steady.tcp} drop; }; }"`
    )
    yield* client.sh(`ss -K sport = :${steady.tcp}; nft delete table inet cut`)
    yield* docker(dockerd, ["rm", "--force", name])
    yield* publish(dockerd, name)
    yield* enter(world, name)
    yield* isFollowed(world, name, reached)
  })

const remove = (name: string) => (world: World) =>
  Effect.andThen(docker(world.dockerd, ["rm", "--force", name]), isFollowed(world, name, closed))

const theHost = ({ host }: World): Reached => host
const from =
  (name: string) =>
  ({ inside }: World) =>
    inside.get(name) ?? assert.fail(`no container ${name}`)
/** The Engine's proxy answers over UDP from another address than the client asked. */
const silentReference: Pick<Way, "reference"> = { reference: ["silence"] }

/** The networks stay isolated where nothing is published. */
const direct = (from: string, wanted: ReadonlyArray<Seen>): Row<World, Side> => ({
  ...{ report: "1", what: `${from}, by the container's own address`, wanted },
  look: ({ dockerd, inside }) =>
    Effect.gen(function* () {
      const format = "--format={{.NetworkSettings.Networks.front.IPAddress}}"
      const host = (yield* docker(dockerd, ["inspect", format, "web"])).trim()
      const client = inside.get(from) ?? assert.fail(from)
      return yield* ask(client, "web", { host, port: 80, isWanted: wanted === reached })
    })
})

const rows: ReadonlyArray<Row<World, Side>> = [
  ...both.flatMap((protocol) => [
    row("suite", "from outside", "web", outside, { protocol, wanted: reached }),
    row("suite", "from outside, over IPv6", "web", "fd99::1", { protocol, wanted: reached }),
    row("suite", "from the host, by its address", "web", outside, {
      protocol,
      from: theHost,
      wanted: reached
    }),
    row("suite", "from the host, by 127.0.0.1", "web", "127.0.0.1", {
      protocol,
      from: theHost,
      wanted: reached
    }),
    row("suite", "from the host, by ::1", "web", "::1", { protocol, from: theHost, wanted: reached })
  ]),
  ...Object.entries(clients).flatMap(([name, network]) =>
    [outside, ...Object.values(gateways)].map((host) =>
      row("1", `from a container of ${network}, by ${host}`, "web", host, {
        from: from(name),
        wanted: reached
      })
    )
  ),
  direct("from-front", reached),
  direct("from-back", closed),
  ...[outside, ...Object.values(gateways)].flatMap((host) =>
    both.map((protocol) =>
      row("4", `from the container itself, by ${host}`, "web", host, {
        ...{ protocol, from: from("web"), wanted: reached },
        ...(protocol === "udp" && host !== gateways.front ? silentReference : {})
      })
    )
  ),
  ...[outside, gateways.bridge, "127.0.0.2"].flatMap((source) =>
    both.map((protocol) =>
      row("5", `by 127.0.0.1, bound to ${source}`, "web", "127.0.0.1", {
        ...{ protocol, source, from: theHost, wanted: reached },
        ...(protocol === "udp" && source !== "127.0.0.2" ? silentReference : {})
      })
    )
  ),
  row("2", "dockerd --ip=127.0.0.1, from the host", "local", "127.0.0.1", { from: theHost, wanted: reached }),
  row("2", "dockerd --ip=127.0.0.1, from outside", "local", outside, { wanted: closed }),
  row("2", "dockerd --ip=127.0.0.1, by ::1", "local", "::1", { from: theHost, wanted: closed }),
  row("2", "host_binding_ipv4=::1, from the host", "six", "::1", { from: theHost, wanted: reached }),
  row("2", "host_binding_ipv4=::1, by 127.0.0.1", "six", "127.0.0.1", { from: theHost, wanted: closed }),
  row("2", "host_binding_ipv4=::1, from outside", "six", outside, { wanted: closed }),
  row("3", "first network internal, then another", "inner-zeta", outside, { wanted: reached }),
  row("3", "default route by the second network", "zeta-alpha", outside, { wanted: reached }),
  row("3", "a second network that is internal", "alpha-inner", outside, { wanted: reached }),
  row("6", "internal network alone, from outside", "inner", outside, { wanted: closed }),
  row("6", "internal network alone, mode=proxy", "relayed", outside, { wanted: reached, reference: closed }),
  row("20", "a container refuses, from outside", "mute", outside, { wanted: ["refused"] }),
  row("20", "a container refuses, from outside", "mute", outside, { protocol: "udp", wanted: ["refused"] }),
  row("20", "a container refuses, by 127.0.0.1", "mute", "127.0.0.1", { from: theHost, wanted: ["refused"] }),
  row("20", "a container refuses, by 127.0.0.1", "mute", "127.0.0.1", {
    ...{ protocol: "udp", from: theHost },
    ...{ wanted: ["refused"], reference: ["silence"] }
  }),
  row("19", "its next container, from the same source port", "next", outside, {
    ...{ before: replace("next"), sourcePort: steady.tcp, wanted: reached }
  }),
  row("suite", "its next container, from the same source port", "next", outside, {
    ...{ protocol: "udp", sourcePort: steady.udp, wanted: reached }
  }),
  row("suite", "after a restart", "web", outside, { before: restart("web"), wanted: reached }),
  row("suite", "after its removal, from outside", "next", outside, {
    before: remove("next"),
    wanted: closed
  }),
  row("suite", "after its removal, from the host", "next", "127.0.0.1", { from: theHost, wanted: closed })
]

describeLab("a label beside -p", ["dockerd", "busybox", "iptables"], () => {
  it.live("is behind in nothing", () =>
    Effect.gen(function* () {
      const { world, plugin } = yield* makeWorld
      assert.deepStrictEqual((yield* doctor(world.host, plugin.socket)).drops, [])
      // What nobody reaches is listed as a problem, and nothing else.
      const listed = yield* mappings(plugin)
      const isLive = (name: string) =>
        listed.some(({ FrontendPort, State }) => FrontendPort === portOf(name, "ours") && State === "live")
      assert.deepStrictEqual(
        names.filter((name) => !isLive(name)),
        ["inner"]
      )
      assert.deepStrictEqual(
        listed.filter(({ State }) => State !== "live").map(({ Labels }) => Labels["portmapper.container"]),
        ["inner"]
      )
      yield* compare("a label beside -p", world, rows, { reference: "reference", ours: "ours" })
    })
  )
})
