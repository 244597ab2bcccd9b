/** Whether the cluster's etcd answers, each endpoint for itself, and fast enough for the leases of its hosts. */
import { Duration, Effect, Result } from "effect"
import type { ClusterError } from "../../src/cluster/Etcd.ts"
import { checkEndpoints, type EndpointStatus } from "../etcd/EtcdEndpoints.ts"
import type { EtcdOptions } from "../etcd/EtcdOptions.ts"
import { type Check, ok, warn } from "./HostChecks.ts"

/** No answer of any endpoint is `fail`: no port of the cluster can be given out. */
export const checkCluster = (
  etcd: EtcdOptions,
  ttl: Duration.Duration
): Effect.Effect<ReadonlyArray<Check>> =>
  Effect.map(Effect.result(checkEndpoints(etcd)), (checked) => {
    if (Result.isFailure(checked))
      return [fail(checked.failure.message, "correct --cluster-ca, --cluster-cert or --cluster-key")]
    const { success: answers } = checked
    const isAnyUp = answers.some((answer) => Result.isSuccess(answer) && answer.success.hasLeader)
    return answers.map((answer) =>
      Result.isFailure(answer) ? notThere(answer.failure, isAnyUp) : there(answer.success, isAnyUp, ttl)
    )
  })

const fail = (found: string, remedy: string): Check => ({ name: "cluster", status: "fail", found, remedy })

const notThere = ({ message }: ClusterError, isAnyUp: boolean): Check =>
  isAnyUp
    ? warn("cluster", message, "start this member, or take it out of --cluster")
    : fail(message, "start etcd, or correct --cluster; what is published goes on meanwhile")

/** The first patch of each minor version of etcd 3 that neither ends a living lease nor loses events of a watch. */
const sound: Readonly<Record<number, number>> = { 4: 31, 5: 13 }

const isSound = (version: string): boolean => {
  const [major = 0, minor = 0, patch = 0] = version.split(".").map(Number)
  return major > 3 || (major === 3 && (minor > 5 || patch >= (sound[minor] ?? Number.POSITIVE_INFINITY)))
}

/** Several requests must fit into the third of a TTL after which a lease is renewed. */
const slowPart = 30

/** A lease does not depend on the time of day, but people compare it. */
const greatestSkewMillis = 5000

const there = (status: EndpointStatus, isAnyUp: boolean, ttl: Duration.Duration): Check => {
  const { endpoint, version, hasLeader, bytes, millis, skewMillis } = status
  const skew = skewMillis === undefined || Math.abs(skewMillis) < 1000 ? 0 : Math.round(skewMillis / 1000)
  const facts = [
    `etcd ${version} at ${endpoint}`,
    `answers in ${millis.toFixed(millis < 10 ? 1 : 0)} ms`,
    `${Math.ceil(bytes / 1024 / 1024)} MiB`,
    ...(skew === 0 ? [] : [`its clock ${Math.abs(skew)} s ${skew > 0 ? "ahead" : "behind"}`])
  ]
  const found = facts.join(", ")
  if (!hasLeader) {
    const remedy = "start more of its members: most of them have to be up"
    return isAnyUp
      ? warn("cluster", `${found}; it has no leader`, remedy)
      : fail(`${found}; it has no leader`, remedy)
  }
  if (!isSound(version))
    return warn(
      "cluster",
      found,
      "upgrade etcd to 3.4.31, 3.5.13 or later: earlier ones may end the lease of a living host after a change of their leader"
    )
  if (millis > Duration.toMillis(ttl) / slowPart)
    return warn(
      "cluster",
      `${found}: slow for a TTL of ${Duration.format(ttl)}`,
      "raise --cluster-ttl, or give etcd a faster disk or network"
    )
  return Math.abs(skewMillis ?? 0) > greatestSkewMillis
    ? warn("cluster", found, "set the clocks by NTP")
    : ok("cluster", found)
}
