/** What labels ask for that does not go together, whatever the group and the host. Pure. */
import { Duration, Result } from "effect"
import { followedInterface } from "../../protocol/FollowLabels.ts"
import type { Labels } from "../../protocol/PortBinding.ts"
import { type Issue, labelIssue, RequestError } from "../../protocol/RequestError.ts"
import { type Mode, type Policy, parsePolicy } from "../model/Labels.ts"
import { wakeIssues } from "./Waiting.ts"

/** The policy of labels that fit together, whatever the group and the host. */
export const policyOf = (labels: Labels): Result.Result<Policy, RequestError> =>
  Result.flatMap(parsePolicy(labels), (policy) => {
    const issues = [
      ...headerIssues(policy),
      ...limitIssues(policy),
      ...balanceIssues(policy),
      ...interfaceIssues(labels, policy.mode),
      ...wakeIssues(labels, policy)
    ]
    return issues.length > 0 ? Result.fail(new RequestError({ issues })) : Result.succeed(policy)
  })

/** What only some modes have, each with these. */
export const limitsWithModes = ({ connections, rate, ratePerSource, waitHealthy }: Policy) =>
  [
    { label: "connections", limit: connections, unit: "", modes: ["proxy"] },
    { label: "rate", limit: rate, unit: "/s", modes: ["nat", "proxy"] },
    { label: "rate-per-source", limit: ratePerSource, unit: "/s", modes: ["proxy"] },
    {
      label: "wait-healthy",
      limit: waitHealthy?.pipe(Duration.toMillis),
      unit: "ms",
      modes: ["nat", "proxy"]
    }
  ].filter(({ limit }) => limit !== undefined)

const limitIssues = (policy: Policy): ReadonlyArray<Issue> =>
  limitsWithModes(policy).flatMap(({ label, limit, unit, modes }) =>
    policy.mode === undefined || modes.includes(policy.mode)
      ? []
      : [
          labelIssue(
            `portmapper.${label}`,
            `${limit}${unit}`,
            `in mode ${modes.join(" or ")}, or without portmapper.mode (not in mode ${policy.mode})`
          )
        ]
  )

const balanceIssues = ({ share, balance }: Policy): ReadonlyArray<Issue> =>
  balance === undefined || share !== undefined
    ? []
    : [labelIssue("portmapper.balance", balance, "beside a portmapper.share")]

const headerIssues = ({ mode, proxyProtocol }: Policy): ReadonlyArray<Issue> =>
  proxyProtocol === undefined || mode === undefined || mode === "proxy"
    ? []
    : [
        labelIssue(
          "portmapper.mode",
          mode,
          "proxy, or not given, beside portmapper.proxy-protocol: only the relay sends the header"
        )
      ]

/** Why what is published at an interface has none of its addresses. */
export const interfaceIssues = (labels: Labels, mode: Mode | undefined): ReadonlyArray<Issue> => {
  const name = mode === "routed" ? followedInterface(labels) : undefined
  return name === undefined
    ? []
    : [
        labelIssue(
          "portmapper.mode",
          mode ?? "",
          `another one at the interface ${name}: mode routed has no host port, so it is published at no address`
        )
      ]
}
