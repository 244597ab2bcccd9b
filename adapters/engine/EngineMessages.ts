/**
 * Schemas of the parts of the Engine's answers that this adapter uses, and their meaning. Stable since API 1.24.
 *
 * Source: the Engine API's reference: /containers/json, /images/{name}/json, /networks, /info, /events.
 */
import { Result, Schema } from "effect"
import { type Address, parseAddress, parseNetwork } from "../../src/protocol/Address.ts"
import type { Labels } from "../../src/protocol/PortBinding.ts"
import type { Attachment, Container, EngineEvent, EngineInfo, Network } from "./Engine.ts"

const text = Schema.optionalKey(Schema.NullOr(Schema.String))
const texts = Schema.optionalKey(Schema.NullOr(Schema.Record(Schema.String, Schema.String)))

const Endpoint = Schema.Struct({
  NetworkID: text,
  IPAddress: text,
  Gateway: text,
  GlobalIPv6Address: text,
  IPv6Gateway: text,
  GwPriority: Schema.optionalKey(Schema.NullOr(Schema.Number))
})

const ListedContainer = Schema.Struct({
  Id: Schema.String,
  Names: Schema.NullOr(Schema.Array(Schema.String)),
  ImageID: text,
  Created: Schema.optionalKey(Schema.Number),
  State: text,
  Status: text,
  Labels: texts,
  HostConfig: Schema.optionalKey(Schema.Struct({ NetworkMode: text })),
  NetworkSettings: Schema.optionalKey(
    Schema.NullOr(
      Schema.Struct({ Networks: Schema.optionalKey(Schema.NullOr(Schema.Record(Schema.String, Endpoint))) })
    )
  )
})

const Inspected = Schema.Struct({
  State: Schema.optionalKey(Schema.NullOr(Schema.Struct({ StartedAt: text })))
})

const Image = Schema.Struct({ Config: Schema.optionalKey(Schema.NullOr(Schema.Struct({ Labels: texts }))) })

const ListedNetwork = Schema.Struct({
  Id: text,
  Name: text,
  Driver: text,
  Internal: Schema.optionalKey(Schema.NullOr(Schema.Boolean)),
  Options: texts,
  IPAM: Schema.optionalKey(
    Schema.NullOr(
      Schema.Struct({
        Config: Schema.optionalKey(Schema.NullOr(Schema.Array(Schema.Struct({ Subnet: text }))))
      })
    )
  )
})

const Info = Schema.Struct({
  ID: text,
  ServerVersion: text,
  FirewallBackend: Schema.optionalKey(Schema.NullOr(Schema.Struct({ Driver: text })))
})

const Event = Schema.Struct({
  Type: text,
  Action: text,
  Actor: Schema.optionalKey(Schema.Struct({ ID: text, Attributes: texts }))
})

const decoder = <T, A>(schema: Schema.ConstraintDecoder<T>, meaning: (message: T) => A) => {
  const decode = Schema.decodeUnknownResult(schema)
  return (value: unknown): Result.Result<A, string> =>
    Result.mapBoth(decode(value), { onSuccess: meaning, onFailure: (error) => error.message })
}

/** A container in none of the given networks counts as attached to none: its host binding is unknown. */
export const decodeContainers = decoder(
  Schema.Array(ListedContainer),
  (listed) =>
    (networks: ReadonlyArray<Network>): ReadonlyArray<Container> =>
      [...listed]
        .sort((a, b) => (a.Created ?? 0) - (b.Created ?? 0) || (a.Id < b.Id ? -1 : 1))
        .map((container) => ({
          id: container.Id,
          name: nameOf(container.Names ?? []) || container.Id.slice(0, 12),
          image: container.ImageID ?? "",
          running: container.State === "running" || container.State === "paused",
          ended: container.State === "exited" || container.State === "dead",
          neverRan: container.State === "created",
          createdMillis: (container.Created ?? 0) * 1000,
          networkMode: container.HostConfig?.NetworkMode ?? "default",
          labels: labelsOf(container.Labels),
          attachments: Object.entries(container.NetworkSettings?.Networks ?? {}).flatMap(
            attachmentIn(networks)
          ),
          unready: container.State === "paused" ? "paused" : unreadyOf(container.Status ?? ""),
          healthy: (container.Status ?? "").includes("(healthy)")
        }))
)

/** When the run began; a time in the year 1 before the first. */
export const decodeRun = decoder(Inspected, ({ State }) => State?.StartedAt ?? "")

export const decodeImage = decoder(Image, ({ Config }): Labels => labelsOf(Config?.Labels))

/** The Engine does not report which containers are in `docker_gwbridge`. */
export const decodeNetworks = decoder(Schema.Array(ListedNetwork), (networks) =>
  networks.map(
    ({ Id, Name, Driver, Internal, Options, IPAM }): Network => ({
      id: Id ?? "",
      name: Name ?? "",
      driver: Driver ?? "",
      bridge: Options?.["com.docker.network.bridge.name"] || `br-${(Id ?? "").slice(0, 12)}`,
      internal: Internal ?? false,
      hostBinding: addressOf(Options?.["com.docker.network.bridge.host_binding_ipv4"]),
      subnets: (Name === "docker_gwbridge" ? [] : (IPAM?.Config ?? [])).flatMap(
        ({ Subnet }) => Result.getOrUndefined(parseNetwork(Subnet ?? "")) ?? []
      )
    })
  )
)

export const decodeInfo = decoder(
  Info,
  ({ ID, ServerVersion, FirewallBackend }): EngineInfo => ({
    id: ID ?? "",
    version: ServerVersion ?? "",
    firewall: FirewallBackend?.Driver ?? undefined
  })
)

/** An event of a network names the container in its attributes. Empty if it names none. */
export const decodeEvent = decoder(Event, ({ Type, Action, Actor }): ReadonlyArray<EngineEvent> => {
  const id = Type === "network" ? Actor?.Attributes?.["container"] : Actor?.ID
  if (typeof id !== "string" || id === "") return []
  const action = Action ?? ""
  if (action !== "kill") return [{ _tag: "Changed", id, action }]
  const ends = stopSignals.includes(Actor?.Attributes?.["signal"] ?? "")
  return ends ? [{ _tag: "Changed", id, action: "stop" }] : []
})

/** The filter for `events`; without it, those of `exec` and the like would be many more. */
export const eventFilters = {
  type: ["container", "network"],
  event: [
    ...["create", "start", "die", "rename", "destroy", "connect", "disconnect"],
    ...["kill", "health_status", "pause", "unpause"]
  ]
}

/** The list has a container's health in its text alone: `Up 3 seconds (health: starting)`, `Up 1 hour (unhealthy)`. */
const unreadyOf = (status: string): Container["unready"] => {
  if (status.includes("(health: starting)")) return "starting"
  return status.includes("(unhealthy)") ? "unhealthy" : undefined
}

/**
 * The signals by which an Engine's `stop` ends a container, as an event numbers them: QUIT, INT, KILL and TERM; WINCH
 * and RTMIN+3, by which httpd and systemd are stopped. HUP, USR1 and USR2 make a server read its settings again.
 */
const stopSignals = ["2", "3", "9", "15", "28", "37"]

/** A legacy link gives a container further names, `/other/alias`. */
const nameOf = (names: ReadonlyArray<string>): string =>
  names.map((name) => name.replace(/^\//, "")).find((name) => !name.includes("/")) ?? ""

const labelsOf = (labels: Readonly<Record<string, string>> | null | undefined): Labels =>
  new Map(Object.entries(labels ?? {}))

const attachmentIn =
  (networks: ReadonlyArray<Network>) =>
  ([named, endpoint]: readonly [string, typeof Endpoint.Type]): ReadonlyArray<Attachment> => {
    const network =
      networks.find(({ id }) => id === endpoint.NetworkID) ?? networks.find(({ name }) => name === named)
    if (network === undefined) return []
    return [
      {
        network,
        gatewayPriority: endpoint.GwPriority ?? 0,
        gateways: (endpoint.Gateway ? 1 : 0) + (endpoint.IPv6Gateway ? 2 : 0),
        v4: addressOf(endpoint.IPAddress),
        v6: addressOf(endpoint.GlobalIPv6Address)
      }
    ]
  }

const addressOf = (address: string | null | undefined): Address | undefined =>
  Result.getOrUndefined(parseAddress(address ?? ""))
