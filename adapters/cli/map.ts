/** `portmapper map`: asks a running plugin to map ports, all or none. */
import { Array as Arr, Console, Effect, Result } from "effect"
import { Command, Flag } from "effect/cli"
import type { Address } from "../../src/protocol/Address.ts"
import { mapPortsResponse } from "../../src/protocol/Answers.ts"
import { type FollowRequest, groupsAtOnce, type InterfaceRequest } from "../../src/protocol/Driver.ts"
import { interfaceIn } from "../../src/protocol/InterfaceLabel.ts"
import type { Group, Labels, PortBinding, ReleasedBinding } from "../../src/protocol/PortBinding.ts"
import {
  atInterface,
  groupsOf,
  type Publish,
  type PublishTo,
  parsePublish,
  publishForm,
  publishText
} from "../../src/protocol/PublishSyntax.ts"
import { releasedBinding } from "../../src/protocol/ReleaseAll.ts"
import type { ClientError } from "../docker/ClientError.ts"
import type { PluginClient } from "../docker/PluginClient.ts"
import {
  answering,
  type ClientFlags,
  clientFlags,
  clientOf,
  interruptedIsFailure,
  wrongUsage
} from "./clientFlags.ts"
import { type CommandFailed, failed, type WrongUsage } from "./failure.ts"
import { parsed } from "./flags.ts"
import { portLines } from "./portRuns.ts"
import { progress } from "./progress.ts"
import { printable } from "./Table.ts"
import { parseTarget, type Target, targetForm } from "./target.ts"
import { errorsText, unmapEach } from "./unmapping.ts"

/** How many calls are in flight at once: the plugin runs them one by one, so this hides the round trip. */
const connections = 4

const flags = {
  publish: parsed(
    "publish",
    publishForm,
    "The ports to map, in Docker's own syntax, or with the name of an interface for HOSTIP; again for more",
    parsePublish
  ).pipe(Flag.withAlias("p"), Flag.atLeast(0)),
  to: parsed(
    "to",
    targetForm,
    "The container's address, again for one of the other family; or its name or id, which serve --watch follows",
    parseTarget
  ).pipe(Flag.atLeast(0)),
  label: parsed(
    "label",
    "KEY=VALUE",
    "A label that steers the mapper, such as portmapper.mode=proxy; again for more",
    parseLabel
  ).pipe(Flag.atLeast(0)),
  ...clientFlags
}

export const map = Command.make("map", flags, (options) =>
  Effect.gen(function* () {
    const labels = new Map(options.label)
    const publish = yield* publishedBy(options.publish, labels)
    const bindings = yield* mapped(options, publish, labels)
    yield* Console.log(
      options.json
        ? JSON.stringify({ PortBindings: mapPortsResponse(bindings).PortBindings })
        : [...portLines(bindings.map(lineOf)), ...waitingLines(publish, bindings)].join("\n")
    )
  }).pipe(answering(options.json), interruptedIsFailure, Effect.scoped)
).pipe(
  Command.withDescription("Ask a running plugin to map ports to an address, or to a container"),
  Command.withExamples([
    {
      command: "portmapper map -p 8080:80 --to 172.17.0.2",
      description: "Port 8080 of every address of this host"
    },
    {
      command: "portmapper map -p 127.0.0.1::53/udp --to 172.17.0.2",
      description: "Any free UDP port of one address"
    },
    {
      command: "portmapper map -p 8000-9000:80 --to 172.17.0.2 --to fd00::2",
      description: "The first free port of a range, for both families"
    },
    {
      command: "portmapper map -p 8080:80 --to web",
      description: "A running container, followed through restarts until unmap (needs serve --watch)"
    },
    {
      command: "portmapper map -p eth0:8080:80 --to 172.17.0.2",
      description: "Every address that the interface eth0 has, now and later, until unmap"
    },
    {
      command: "portmapper map -p '[::1]:7000-7010:7000-7010' --to 172.17.0.2 --label portmapper.mode=proxy",
      description: "Eleven ports of one IPv6 address, relayed in userland"
    }
  ])
)

const addressesOf = (target: Target): ReadonlyArray<Address> =>
  target._tag === "Address" ? [target.address] : []

/** The container of `--to`, if one is named: then no other `--to` is allowed. */
const containerOf = (targets: ReadonlyArray<Target>): Effect.Effect<string | undefined, WrongUsage> => {
  const [first] = targets.flatMap((target) => (target._tag === "Container" ? [target.container] : []))
  return first === undefined || targets.length === 1
    ? Effect.succeed(first)
    : wrongUsage("map", `--to ${first}: with a container there is no other --to`)
}

/** What to map, at the interface that the label names, if there is one. */
const publishedBy = (publish: ReadonlyArray<Publish>, labels: Labels) =>
  Effect.gen(function* () {
    if (publish.length === 0) return yield* wrongUsage("map", `name what to map by -p ${publishForm}`)
    const labelled = interfaceIn(labels)
    if (Result.isFailure(labelled)) return yield* wrongUsage("map", `--label: ${labelled.failure.message}`)
    const { interfaceName } = labelled.success
    if (interfaceName === undefined) return publish
    return yield* Effect.forEach(publish, (each) =>
      Result.match(atInterface(each, interfaceName), {
        onFailure: (rule) => wrongUsage("map", `-p ${publishText(each)}: ${rule}`),
        onSuccess: Effect.succeed
      })
    )
  })

interface MapFlags extends ClientFlags {
  readonly to: ReadonlyArray<Target>
}

const mapped = Effect.fnUntraced(function* (
  options: MapFlags,
  publish: ReadonlyArray<Publish>,
  labels: Labels
) {
  const container = yield* containerOf(options.to)
  if (container !== undefined) return yield* followContainer(options, { container, publish, labels })
  const to = yield* backendOf(options.to.flatMap(addressesOf))
  const [others, atInterfaces] = partition(publish, ({ interfaceName }) => interfaceName !== undefined)
  const [other] = others
  if (atInterfaces.length === 0) {
    const jobs = yield* jobsOf(publish, to, labels)
    return yield* Effect.flatMap(clientOf("map", options), (client) => mapJobs(client, jobs))
  }
  if (other !== undefined)
    return yield* wrongUsage(
      "map",
      `-p ${publishText(other)}: beside an interface each -p names one; map this in another call`
    )
  return yield* followInterface(options, { to, publish, labels })
})

/** One call for all ports: the plugin maps all of them or none. */
const followContainer = Effect.fnUntraced(function* (options: ClientFlags, follow: FollowRequest) {
  const client = yield* clientOf("map", options)
  return yield* Effect.mapError(client.followContainer(follow), (error) =>
    failed(
      `mapping to container ${follow.container} failed`,
      error._tag === "NotOffered"
        ? `the plugin at ${error.where} watches no Engine, and knows no containers by name: start it with: portmapper serve --watch; or give --to the container's address`
        : error.message
    )
  )
})

const followInterface = Effect.fnUntraced(function* (options: ClientFlags, follow: InterfaceRequest) {
  const client = yield* clientOf("map", options)
  return yield* Effect.mapError(client.followInterface(follow), (error) =>
    failed(
      `mapping ${follow.publish.map(publishText).join(", ")} failed`,
      error._tag === "NotOffered"
        ? `the plugin at ${error.where} follows no interfaces; name the host's address`
        : error.message
    )
  )
})

/** What waits for its interface to get an address. */
const waitingLines = (
  publish: ReadonlyArray<Publish>,
  bindings: ReadonlyArray<PortBinding>
): ReadonlyArray<string> =>
  publish
    .filter(
      ({ interfaceName, protocol, hostPorts }) =>
        interfaceName !== undefined &&
        // At an interface host ports are exact, and all of a range are mapped or none.
        !bindings.some(({ entry, port }) => entry.protocol === protocol && port === hostPorts?.first)
    )
    .map((each) => `waiting for an address of the interface ${each.interfaceName}: ${publishText(each)}`)

/** One call to make, and the `-p` that it comes from. */
interface Job {
  readonly text: string
  readonly group: Group
}

/** The addresses to lead to, one of a family at most. */
const backendOf = Effect.fnUntraced(function* (
  addresses: ReadonlyArray<Address>
): Effect.fn.Return<PublishTo, WrongUsage> {
  if (addresses.length === 0)
    return yield* wrongUsage("map", "name where to by --to ADDRESS or --to CONTAINER")
  const v4 = addresses.filter(({ family }) => family === 4)
  const v6 = addresses.filter(({ family }) => family === 6)
  const twice = [v4, v6].find((family) => family.length > 1)
  if (twice !== undefined)
    return yield* wrongUsage(
      "map",
      `--to ${twice.map(({ text }) => text).join(" --to ")}: one IPv4 and one IPv6 address at most`
    )
  return { v4: v4[0], v6: v6[0] }
})

const jobsOf = Effect.fnUntraced(function* (
  published: ReadonlyArray<Publish>,
  to: PublishTo,
  labels: Labels
): Effect.fn.Return<ReadonlyArray<Job>, WrongUsage> {
  const jobs: Array<Job> = []
  for (const publish of published) {
    const text = publishText(publish)
    const groups = groupsOf(publish, to, labels)
    if (Result.isFailure(groups)) return yield* wrongUsage("map", `-p ${text}: ${groups.failure}`)
    for (const group of groups.success) jobs.push({ text, group })
  }
  return jobs
})

/** Maps all or none: a failure or an interruption unmaps what this command has mapped so far. */
const mapJobs = (
  client: PluginClient,
  jobs: ReadonlyArray<Job>
): Effect.Effect<ReadonlyArray<PortBinding>, CommandFailed> =>
  Effect.gen(function* () {
    const before = yield* mappedBefore(client, jobs)
    const granted = new Map<Job, ReadonlyArray<PortBinding>>()
    const undo = () =>
      unmapEach(
        client,
        [...granted.values()]
          .flat()
          .flatMap(releaseOf)
          .filter((binding) => !before.has(bindingKey(binding)))
      )
    const done = yield* progress("mapping", jobs.length)
    const keep = (some: ReadonlyArray<Job>, answers: ReadonlyArray<ReadonlyArray<PortBinding>>) => {
      for (const [index, job] of some.entries()) granted.set(job, answers[index] ?? [])
      done(some.length)
    }
    const mapOne = (job: Job) =>
      client.mapPorts(job.group).pipe(
        Effect.map((bindings) => keep([job], [bindings])),
        Effect.mapError((error) => ({ job, error })),
        // Waits for an answer in flight: only known bindings can be undone.
        Effect.uninterruptible
      )
    // Falls back to single calls if the plugin is not ours, or refuses a group: then that group's answer says why.
    const mapTogether = (some: ReadonlyArray<Job>) =>
      client.mapTogether(some.map(({ group }) => group)).pipe(
        Effect.map((answers) => keep(some, answers)),
        Effect.uninterruptible,
        Effect.catch(() => Effect.forEach(some, mapOne, { concurrency: connections, discard: true }))
      )
    const mapEach = (some: ReadonlyArray<Job>) =>
      Effect.forEach(
        Arr.chunksOf(some, groupsAtOnce),
        (batch) => (batch.length > 1 ? mapTogether(batch) : Effect.forEach(batch, mapOne)),
        { discard: true }
      )
    // Exact ports first, as in the Engine, so that no range picks one of them.
    const [others, exact] = partition(jobs, ({ group }) => group.ports._tag === "Exact")
    yield* Effect.andThen(mapEach(exact), mapEach(others)).pipe(
      Effect.catch(({ job, error }) => Effect.flatMap(undo(), (undone) => mappingFailed(job, error, undone))),
      Effect.onInterrupt(undo)
    )
    return jobs.flatMap((job) => granted.get(job) ?? [])
  }).pipe(Effect.scoped)

const mappingFailed = (
  job: Job,
  error: ClientError,
  undone: { count: number; errors: ReadonlyArray<ClientError> }
) => {
  const ports = undone.count === 1 ? "1 port" : `${undone.count} ports`
  const notes = [
    undone.count === 0 ? undefined : `what was mapped before it (${ports}) was unmapped again`,
    undone.errors.length === 0
      ? undefined
      : `unmapping what was mapped before it failed: ${errorsText(undone.errors)}; see: portmapper ls`
  ].filter((note) => note !== undefined)
  return failed(`mapping ${job.text} failed`, [error.message, ...notes].join("; "))
}

/** What was mapped before. Only several calls need it: a single one undoes itself. Another plugin lists nothing. */
const mappedBefore = (client: PluginClient, jobs: ReadonlyArray<Job>) =>
  jobs.length < 2
    ? Effect.succeed(new Set<string>())
    : client.listPorts.pipe(
        Effect.map((listed) => new Set(listed.flatMap(releasedBinding).map(bindingKey))),
        Effect.catchTag("NotOffered", () => Effect.succeed(new Set<string>())),
        Effect.mapError((error) => failed(`mapping ${jobs[0]?.text} failed`, error.message))
      )

const bindingKey = ({ protocol, host, port, backend: { address, port: to } }: ReleasedBinding): string =>
  `${protocol} ${host.key} ${port} ${address?.key} ${to}`

const releaseOf = ({ entry, port, discarded }: PortBinding): ReadonlyArray<ReleasedBinding> =>
  discarded === undefined
    ? [{ protocol: entry.protocol, host: entry.host, port, backend: entry.backend }]
    : []

const lineOf = ({ entry: { protocol, host, backend }, port, discarded }: PortBinding) => ({
  protocol,
  host,
  port,
  ...(discarded === undefined ? { backend } : { note: ` discarded: ${printable(discarded)}` })
})

const partition = <A>(items: ReadonlyArray<A>, holds: (item: A) => boolean): [Array<A>, Array<A>] => {
  const [no, yes]: [Array<A>, Array<A>] = [[], []]
  for (const item of items) (holds(item) ? yes : no).push(item)
  return [no, yes]
}

/** As Docker's `--label`: without `=` the value is empty. */
function parseLabel(text: string): Result.Result<readonly [string, string], string> {
  const at = text.indexOf("=")
  const name = at === -1 ? text : text.slice(0, at)
  return name.trim() === ""
    ? Result.fail("expected KEY=VALUE, with a key")
    : Result.succeed([name, at === -1 ? "" : text.slice(at + 1)])
}
