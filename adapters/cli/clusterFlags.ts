/** The options that make a host a member of a cluster, and their rules of usage. */
import * as Os from "node:os"
import { Duration, Effect, Option, Result } from "effect"
import { Flag } from "effect/cli"
import { type PortScope, parseDuration } from "../../src/mapper/model/Labels.ts"
import { parseAddress } from "../../src/protocol/Address.ts"
import { type EtcdOptions, parseEndpoints } from "../etcd/EtcdOptions.ts"
import { unpaired, useless, WrongUsage } from "./failure.ts"
import { type Given, optionalText, parsed } from "./flags.ts"
import { givenOf } from "./settings.ts"

const nameRule = "letters, digits, _, . and -, at most 64, the first a letter or digit"
const isName = (text: string): boolean => /^[A-Za-z0-9][\w.-]{0,63}$/.test(text)

const name = (option: string, description: string) =>
  parsed(option, "NAME", description, (text) =>
    isName(text) ? Result.succeed(text) : Result.fail(`expected ${nameRule}`)
  )

const between = (
  option: string,
  description: string,
  least: Duration.Duration,
  most: Duration.Duration
): Flag.Flag<Option.Option<Duration.Duration>> =>
  Flag.optional(
    parsed(option, "DURATION", description, (text) => {
      const rule = `expected a duration of ${Duration.format(least)} to ${Duration.format(most)}`
      const duration = Result.getOrUndefined(parseDuration(text))
      return duration !== undefined &&
        Duration.isGreaterThanOrEqualTo(duration, least) &&
        Duration.isLessThanOrEqualTo(duration, most)
        ? Result.succeed(duration)
        : Result.fail(rule)
    })
  )

/** How to reach the cluster's etcd; shared by the commands that do. */
export const connectionFlags = {
  cluster: Flag.optional(
    parsed(
      "cluster",
      "URL[,URL...]",
      "Make ports unique over all hosts that use this etcd: http://HOST[:2379] or https://HOST[:2379], several of one cluster with commas between them",
      // The message has the whole text already.
      (text) => Result.mapError(parseEndpoints(text), (rule) => rule.replace(`"${text}": `, ""))
    )
  ),
  clusterName: name("cluster-name", "The cluster's name, the prefix of its keys in etcd").pipe(
    Flag.withDefault("default")
  ),
  clusterCa: optionalText("cluster-ca", "FILE", "What etcd's certificate must be signed by, PEM"),
  clusterCert: optionalText("cluster-cert", "FILE", "The certificate that etcd is shown, PEM"),
  clusterKey: optionalText("cluster-key", "FILE", "The key of that certificate, PEM without a passphrase"),
  clusterUser: optionalText("cluster-user", "NAME", "The user of etcd whose role allows the cluster's keys"),
  clusterPasswordFile: optionalText("cluster-password-file", "FILE", "Holds that user's password")
}

export const defaultTtl = Duration.seconds(30)
const defaultAbsence = Duration.minutes(10)

/** The defaults that no option has as its value. */
export const defaultTexts = {
  clusterHost: Os.hostname(),
  clusterTtl: "30s",
  clusterAbsence: "10m",
  clusterScope: "cluster"
}

export const clusterTtl = between(
  "cluster-ttl",
  `How long this host's ports stay its own once it fails or is cut off (${defaultTexts.clusterTtl})`,
  Duration.seconds(5),
  Duration.hours(1)
)

export const clusterFlags = {
  ...connectionFlags,
  clusterHost: Flag.optional(
    name("cluster-host", "This host's name in the cluster (the system's host name)")
  ),
  clusterAddress: Flag.optional(
    parsed(
      "cluster-address",
      "ADDRESS",
      "Where others reach this host; shown by ls --cluster, used by nothing else",
      parseAddress
    )
  ),
  clusterTtl,
  clusterAbsence: between(
    "cluster-absence",
    `The same after a clean stop, as for a reboot (${defaultTexts.clusterAbsence})`,
    Duration.seconds(5),
    Duration.days(7)
  ),
  clusterScope: Flag.optional(
    Flag.Literals("cluster-scope", ["cluster", "host"]).pipe(
      Flag.withDescription(
        `Where ports are unique whose label portmapper.scope does not say (${defaultTexts.clusterScope})`
      )
    )
  )
}

export type ConnectionFlags = Given<typeof connectionFlags>
export type ClusterFlags = Given<typeof clusterFlags>

export interface Connection {
  readonly name: string
  readonly etcd: EtcdOptions
}

export interface ClusterOptions extends Connection {
  readonly host: string
  readonly address: string | undefined
  readonly ttl: Duration.Duration
  readonly absence: Duration.Duration
  readonly scope: PortScope
}

/** The etcd that the options name, if they name one. */
export const connectionOf = (options: ConnectionFlags): Result.Result<Connection | undefined, WrongUsage> => {
  const { clusterCa, clusterCert, clusterKey, clusterUser, clusterPasswordFile } = options
  const given = givenOf(
    options,
    "clusterCa",
    "clusterCert",
    "clusterKey",
    "clusterUser",
    "clusterPasswordFile"
  )
  if (Option.isNone(options.cluster))
    return given.length === 0 ? Result.succeed(undefined) : Result.fail(useless(given, "--cluster URL"))
  const endpoints = options.cluster.value
  const tls = endpoints.some((endpoint) => endpoint.tls)
  const files = given.filter((option) => /-(ca|cert|key)$/.test(option))
  if (files.length > 0 && !tls) return Result.fail(useless(files, "an https:// URL in --cluster"))
  for (const [one, other] of pairs)
    if (given.includes(one) !== given.includes(other)) return Result.fail(unpaired(one, other))
  return Result.succeed({
    name: options.clusterName,
    etcd: {
      endpoints,
      tls: tls
        ? {
            ca: Option.getOrUndefined(clusterCa),
            cert: Option.getOrUndefined(clusterCert),
            key: Option.getOrUndefined(clusterKey)
          }
        : undefined,
      user: Option.getOrUndefined(clusterUser),
      passwordFile: Option.getOrUndefined(clusterPasswordFile)
    }
  })
}

const pairs = [
  ["--cluster-cert", "--cluster-key"],
  ["--cluster-user", "--cluster-password-file"]
] as const

/** The cluster that `serve` joins, if it joins one. */
export const clusterOf = (options: ClusterFlags): Effect.Effect<ClusterOptions | undefined, WrongUsage> =>
  Effect.gen(function* () {
    const connection = yield* Effect.fromResult(connectionOf(options))
    const { clusterHost, clusterAddress, clusterTtl, clusterAbsence, clusterScope } = options
    if (connection === undefined) {
      const given = givenOf(
        options,
        "clusterHost",
        "clusterAddress",
        "clusterTtl",
        "clusterAbsence",
        "clusterScope"
      )
      return given.length === 0 ? undefined : yield* useless(given, "--cluster URL")
    }
    const host = Option.getOrElse(clusterHost, Os.hostname)
    if (!isName(host))
      return yield* new WrongUsage({
        message: `--cluster-host: the system's host name "${host}" can't be its name in the cluster, which is ${nameRule}; give another one`
      })
    return {
      ...connection,
      host,
      address: Option.getOrUndefined(Option.map(clusterAddress, ({ text }) => text)),
      ttl: Option.getOrElse(clusterTtl, () => defaultTtl),
      absence: Option.getOrElse(clusterAbsence, () => defaultAbsence),
      scope: Option.getOrElse(clusterScope, () => "cluster" as const)
    }
  })
