/** `portmapper unmap`: removes mappings; those of another owner only with `--owner`. */
import { Console, Effect, Option, Result } from "effect"
import { Command, Flag } from "effect/cli"
import { type Address, hostText, parseAddress } from "../../src/protocol/Address.ts"
import type { ListedMapping } from "../../src/protocol/Driver.ts"
import { followedInterface } from "../../src/protocol/FollowLabels.ts"
import { listedFrontend } from "../../src/protocol/ListedText.ts"
import { frontendText, type Release, type ReleasedBinding } from "../../src/protocol/PortBinding.ts"
import { protocolNumber } from "../../src/protocol/Protocol.ts"
import {
  containerPortOf,
  hostsOf,
  namesHost,
  namesPorts,
  parseUnpublish,
  type Unpublish,
  unpublishForm,
  unpublishText
} from "../../src/protocol/PublishSyntax.ts"
import { releasedBinding, releasesOf } from "../../src/protocol/ReleaseAll.ts"
import type { ClientError } from "../docker/ClientError.ts"
import type { PluginClient } from "../docker/PluginClient.ts"
import {
  answering,
  bindingJson,
  type ClientFlags,
  clientFlags,
  clientOf,
  interruptedIsFailure,
  owner as ownOwner,
  wrongUsage
} from "./clientFlags.ts"
import { failed } from "./failure.ts"
import { optionalText, parsed, toggle } from "./flags.ts"
import { sorted } from "./mappingTable.ts"
import { type PortLine, portLines } from "./portRuns.ts"
import { progress } from "./progress.ts"
import { leadsTo, parseTarget, type Target, targetForm, targetText } from "./target.ts"
import { errorsText, releaseEach } from "./unmapping.ts"

const flags = {
  publish: parsed(
    "publish",
    unpublishForm,
    "The host ports to unmap, or those of an interface by its name for HOSTIP; again for more",
    parseUnpublish
  ).pipe(Flag.withAlias("p"), Flag.atLeast(0)),
  all: toggle("all", "Unmap all that the owner has"),
  to: parsed("to", targetForm, "Unmap only what leads there: one backend of a service", parseTarget).pipe(
    Flag.optional
  ),
  stale: toggle("stale", "Unmap what an earlier start of the Engine left behind"),
  owner: optionalText(
    "owner",
    "OWNER|any",
    "Whose mappings may be unmapped: cli (what map made, the default), engine, watch, … or any"
  ),
  ...clientFlags
}

interface UnmapFlags extends ClientFlags {
  readonly publish: ReadonlyArray<Unpublish>
  readonly all: boolean
  readonly to: Option.Option<Target>
  readonly stale: boolean
  readonly owner: Option.Option<string>
}

export const unmap = Command.make("unmap", flags, (options) =>
  Effect.gen(function* () {
    yield* checkUsage(options)
    const client = yield* clientOf("unmap", options)
    const listed = yield* Effect.result(client.listPorts)
    if (Result.isFailure(listed) && !(listed.failure._tag === "NotOffered" && options.publish.length > 0))
      return yield* failed("unmapping failed", listed.failure.message)
    if (Result.isFailure(listed) && Option.isSome(options.to))
      return yield* failed("unmapping failed", `--to needs a list of backends: ${listed.failure.message}`)
    const chosen = Result.isSuccess(listed)
      ? yield* choose(options, listed.success)
      : chosenUnseen(options.publish)
    yield* release(client, chosen.releases)
    yield* Console.log(options.json ? jsonOf(chosen) : linesOf(chosen, options.to).join("\n"))
  }).pipe(answering(options.json), interruptedIsFailure, Effect.scoped)
).pipe(
  Command.withDescription("Take mappings back; what is not mapped is no error"),
  Command.withExamples([
    { command: "portmapper unmap -p 8080", description: "What map -p 8080:80 made" },
    { command: "portmapper unmap -p 127.0.0.1:53/udp -p 7000-7010" },
    { command: "portmapper unmap --all", description: "All that map made" },
    {
      command: "portmapper unmap -p 8080 --to 172.17.0.2",
      description: "One backend of the port; the others stay"
    },
    { command: "portmapper unmap --stale", description: "What an Engine forgot while the plugin was away" },
    { command: "portmapper unmap -p 8080 --owner any", description: "Whoever has it" }
  ])
)

interface Chosen {
  readonly releases: ReadonlyArray<Release>
  /** What they release, as it is printed. */
  readonly bindings: ReadonlyArray<ReleasedBinding>
  /** Ports at an interface that has no address. */
  readonly waiting: ReadonlyArray<ListedMapping>
  /** The named ports that are not mapped, each with a hint if there is one. */
  readonly missing: ReadonlyArray<string>
}

const checkUsage = ({ publish, all, stale, owner }: UnmapFlags) => {
  const named = [publish.length > 0, all, stale].filter((given) => given).length
  if (named === 0) return wrongUsage("unmap", `name what to unmap by -p ${unpublishForm}, --all or --stale`)
  if (named > 1) return wrongUsage("unmap", "give one of -p, --all and --stale")
  return Option.contains(owner, "") ? wrongUsage("unmap", "--owner is missing its value") : Effect.void
}

/** Unmaps nothing if a named port belongs to another owner. */
const choose = Effect.fnUntraced(function* (options: UnmapFlags, listed: ReadonlyArray<ListedMapping>) {
  // Only an Engine's mappings go stale.
  const whose = Option.getOrElse(options.owner, () => (options.stale ? "any" : ownOwner))
  const owned = ({ owner }: ListedMapping) => whose === "any" || owner === whose
  const there = listed.filter((mapping) => Option.isNone(options.to) || leadsTo(mapping, options.to.value))
  if (options.publish.length === 0) {
    const mine = there.filter((mapping) => owned(mapping) && (!options.stale || mapping.state === "stale"))
    return chosenOf(mine, [])
  }
  const found = new Map(
    options.publish.map((named) => [named, there.filter((mapping) => matches(named, mapping))])
  )
  const mappings = new Set([...found.values()].flat())
  const foreign = [...mappings].find((mapping) => !owned(mapping))
  if (foreign !== undefined) {
    return yield* failed(
      `unmapping ${listedFrontend(foreign)} failed`,
      `it belongs to ${foreign.owner}, not to ${whose}; to unmap it all the same add --owner ${foreign.owner}`
    )
  }
  for (const [{ interfaceName }, some] of found) {
    const followed = some.find(({ labels }) => followedInterface(labels) !== interfaceName)
    if (followed === undefined) continue
    const name = followedInterface(followed.labels)
    return yield* failed(
      `unmapping ${listedFrontend(followed)} failed`,
      `it is published at every address of the interface ${name}; to unmap it there: -p ${name}:${followed.frontendPort}`
    )
  }
  const missing = [...found].flatMap(([named, some]) =>
    some.length === 0 ? [missingText(named, there)] : []
  )
  return chosenOf([...mappings], missing)
})

const chosenOf = (mappings: ReadonlyArray<ListedMapping>, missing: ReadonlyArray<string>): Chosen => ({
  releases: releasesOf(mappings),
  bindings: sorted(mappings).flatMap(releasedBinding),
  waiting: mappings.filter(
    ({ frontendIp, labels }) => frontendIp === "" && followedInterface(labels) !== undefined
  ),
  missing
})

const matches = (named: Unpublish, mapping: ListedMapping): boolean =>
  hasPort(named, mapping) &&
  namesHost(named, addressOf(mapping.frontendIp), followedInterface(mapping.labels))

const hasPort = (named: Unpublish, { protocol, frontendPort, backendPort }: ListedMapping): boolean =>
  protocol === protocolNumber[named.protocol] && namesPorts(named, frontendPort, backendPort)

/** A port without an address means all addresses; if it is mapped on another one, the hint names that address. */
const missingText = (named: Unpublish, listed: ReadonlyArray<ListedMapping>): string => {
  const elsewhere = listed.flatMap((mapping) => {
    const host = addressOf(mapping.frontendIp)
    const place = followedInterface(mapping.labels) ?? (host === undefined ? undefined : hostText(host))
    return place !== undefined && hasPort(named, mapping) ? [place] : []
  })
  const hint = elsewhere.length === 0 ? "" : ` (but on ${[...new Set(elsewhere)].slice(0, 4).join(", ")})`
  return `${unpublishText(named)}${named.protocol === "tcp" ? "/tcp" : ""}${hint}`
}

/** For a plugin that lists nothing: exactly the named ports, and we trust its answer. It follows no interface. */
const chosenUnseen = (publish: ReadonlyArray<Unpublish>): Chosen => {
  const bindings = publish.filter(({ interfaceName }) => interfaceName === undefined).flatMap(namedOnly)
  const missing = publish
    .filter(({ interfaceName }) => interfaceName !== undefined)
    .map((named) => missingText(named, []))
  return { releases: [{ bindings, labels: new Map() }], bindings, waiting: [], missing }
}

const namedOnly = (named: Unpublish): ReadonlyArray<ReleasedBinding> => {
  const { protocol, host, ports } = named
  return Array.from({ length: ports.last - ports.first + 1 }, (_, index) => ports.first + index).flatMap(
    (port) =>
      hostsOf(host).map((address) => ({
        protocol,
        host: address,
        port,
        backend: { address: undefined, port: containerPortOf(named, port) ?? 0 }
      }))
  )
}

const release = Effect.fnUntraced(function* (client: PluginClient, releases: ReadonlyArray<Release>) {
  const total = releases.reduce((sum, { bindings }) => sum + bindings.length, 0)
  const done = yield* progress("unmapping", total)
  const { count, errors }: { count: number; errors: ReadonlyArray<ClientError> } = yield* releaseEach(
    client,
    releases,
    done
  )
  if (errors.length > 0)
    return yield* failed(
      `unmapping ${total} mappings failed`,
      `${errorsText(errors)}; ${count} were unmapped, see: portmapper ls`
    )
}, Effect.scoped)

const linesOf = (
  { bindings, waiting, missing }: Chosen,
  to: Option.Option<Target>
): ReadonlyArray<string> => {
  const frontends = [...Map.groupBy(bindings, (one) => frontendText(one)).values()]
  const unmapped = Option.isSome(to)
    ? bindings.map((one) => ({ ...backendLine(one), container: targetText(to.value) }))
    : frontends.flatMap(frontendLine)
  const where = Option.match(to, { onNone: () => "", onSome: (target) => ` to ${targetText(target)}` })
  const lines = [
    ...portLines(unmapped).map((line) => `unmapped ${line}`),
    ...waiting.map((mapping) => `unmapped ${listedFrontend(mapping)}`),
    ...missing.map((text) => `not mapped: ${text}${where}`)
  ]
  return lines.length === 0 ? ["nothing to unmap"] : lines
}

const backendLine = ({
  protocol,
  host,
  port,
  backend: { address, port: to }
}: ReleasedBinding): PortLine => ({
  protocol,
  host,
  port,
  backend: address && { address, port: to }
})

/** A service's port is named once, with the number of its backends. */
const frontendLine = ([first, ...others]: ReadonlyArray<ReleasedBinding>): ReadonlyArray<PortLine> => {
  if (first === undefined) return []
  const { protocol, host, port } = first
  const note = others.length === 0 ? undefined : ` (${others.length + 1} backends)`
  return [{ protocol, host, port, note }]
}

const jsonOf = ({ bindings, waiting, missing }: Chosen): string =>
  JSON.stringify({
    Unmapped: [
      ...bindings.map(bindingJson),
      ...waiting.map(({ protocol, frontendPort, backendIp, backendPort }) => ({
        Proto: protocol,
        FrontendIP: "",
        FrontendPort: frontendPort,
        BackendIP: backendIp,
        BackendPort: backendPort
      }))
    ],
    NotMapped: missing
  })

const addressOf = (text: string): Address | undefined => Result.getOrUndefined(parseAddress(text))
