/** One row of the page for each listed mapping: its texts, what is wrong with it, how to unmap it. Pure. */
import { Result } from "effect"
import { hostText, parseAddress } from "../protocol/Address.ts"
import type { ListedMapping } from "../protocol/Driver.ts"
import { containerLabel, errorLabel, followedInterface, publishLabel } from "../protocol/FollowLabels.ts"
import { shortened } from "../protocol/GoJson.ts"
import { refusalReasons } from "../protocol/Limits.ts"
import { containerName, hasAddress, isResting } from "../protocol/ListedText.ts"
import { protocolOfNumber } from "../protocol/Protocol.ts"
import { shareLabel } from "../protocol/ServiceName.ts"
import { shellWord } from "../protocol/ShellWord.ts"
import type { PageRow } from "./PageState.ts"

/** A finding of `doctor` about some of the mappings: why their traffic is dropped. */
export interface Drop {
  readonly reason: string
  readonly remedy: string
}

export interface RowContext {
  /** By frontend, as `0.0.0.0:8080/tcp`. */
  readonly drops: ReadonlyMap<string, Drop>
  /** What `unmap` needs to find this plugin: ` --socket PATH`, or nothing. */
  readonly reaching: string
}

/** The part of a row that is not traffic. */
export type Described = Omit<PageRow, "id" | keyof Traffic>
type Traffic = Pick<
  PageRow,
  "connections" | "bytesIn" | "bytesOut" | "connectionsRate" | "bytesInRate" | "bytesOutRate"
>

type Frontend = Pick<ListedMapping, "frontendIp" | "labels">

/** The address; the name of the interface while that has none. */
const hostOf = ({ frontendIp, labels }: Frontend): string =>
  frontendIp === "" ? (followedInterface(labels) ?? "") : frontendIp

/** Identifies a row for good. What `watch` could not publish may have no backend, and is named by its container. */
export const keyOf = (
  listed: Frontend & Pick<ListedMapping, "protocol" | "frontendPort" | "backendIp" | "backendPort">
): string => {
  const { protocol, frontendPort, backendIp, backendPort, labels } = listed
  const ends = [
    protocolText(protocol),
    endText(hostOf(listed), frontendPort),
    endText(backendIp, backendPort)
  ]
  if (labels.has(errorLabel)) ends.push(labels.get(containerLabel) ?? "", labels.get(publishLabel) ?? "")
  return cut(ends.join(" "))
}

export const describe = (key: string, listed: ListedMapping, context: RowContext): Described => {
  const { labels, service, slots, carriers } = listed
  return {
    key,
    protocol: protocolText(listed.protocol),
    address: cut(hostOf(listed)),
    port: listed.frontendPort,
    service: service === undefined ? null : cut(service),
    backend: {
      address: hasAddress(listed) ? cut(listed.backendIp) : "",
      port: listed.backendPort,
      container: cutOrNull(listed.container ?? labels.get(containerLabel)),
      slots: slots === undefined ? null : { has: slots.has, of: slots.of }
    },
    mode: cut(listed.mode),
    owner: cut(listed.owner),
    state: listed.state,
    since: listed.sinceMillis,
    open: listed.open ?? null,
    refused: refusalReasons.flatMap((label) => {
      const count = listed.refused?.[label]
      return count === undefined ? [] : [{ label, count }]
    }),
    labels: [...labels].map(([name, value]) => ({
      name: cut(name),
      value: cut(name === shareLabel && service !== undefined ? service : value)
    })),
    carriers:
      carriers === undefined
        ? null
        : { socket: carriers.socket, kernel: carriers.kernel, relay: carriers.relay ?? null },
    problem: problemOf(listed, context),
    unmap: unmapCommand(listed, context)
  }
}

/** `0.0.0.0:8080/tcp`, as `doctor` writes it. */
const frontendOf = (listed: ListedMapping): string =>
  `${endText(hostOf(listed), listed.frontendPort)}/${protocolText(listed.protocol)}`

const problemOf = (listed: ListedMapping, context: RowContext): PageRow["problem"] => {
  const { state, reason, container } = listed
  const problem = (
    severity: "error" | "warning",
    why: string,
    remedy: string | null
  ): PageRow["problem"] => ({
    severity,
    reason: cut(why),
    remedy: remedy === null ? null : cut(remedy)
  })
  if (state === "conflicted") {
    const why = reason ?? "it can't be served at the moment"
    return problem("error", why, remedyOf(why, listed))
  }
  if (reason !== undefined) return problem("warning", reason, remedyOf(reason, listed))
  const drop = context.drops.get(frontendOf(listed))
  if (drop !== undefined) return problem("error", drop.reason, drop.remedy)
  if (state === "waiting")
    return problem(
      "warning",
      "its container is not ready, so that it gets no new connections",
      container === undefined ? null : `docker inspect ${shellWord(containerName(container))}`
    )
  if (state === "stale")
    return problem(
      "warning",
      "an earlier start of the Engine asked for it, and the present one has not",
      `portmapper unmap --stale${context.reaching}`
    )
  if (state === "unconfirmed")
    return problem(
      "warning",
      "it was found at a start, and perhaps its caller never got the answer",
      "ask for it again, or unmap it; it is evicted when its port is wanted"
    )
  return null
}

/** Recognises an error by its text, as tools do (PROTOCOL.md, rule 2). */
const remedyOf = (reason: string, { protocol, frontendPort, container, state }: ListedMapping): string => {
  if (isResting(state) && container !== undefined) return `docker logs ${shellWord(containerName(container))}`
  const again = "it is served within a second once that is mended"
  if (reason.includes("address already in use")) {
    const kind = { tcp: "t", udp: "u", sctp: "S" }[protocolOfNumber(protocol) ?? "tcp"]
    return `stop the process that has the port, which this command names: ss -Hlnp${kind} 'sport = :${frontendPort}'; ${again}`
  }
  if (reason.includes("port is already allocated") || reason.includes("all ports are allocated"))
    return "unmap what has the port, which portmapper ls names, or publish on another one"
  if (reason.includes("cannot assign requested address"))
    return `give this host the address, which ip address lists if it has it; ${again}`
  return `look at the reason and at portmapper doctor; ${again}`
}

/** `null` where there is no host port, by which `unmap` names a mapping. What an interface has is named by that. */
const unmapCommand = (listed: ListedMapping, { reaching }: RowContext): string | null => {
  const { protocol, frontendIp, frontendPort, labels, owner } = listed
  if (frontendPort === 0) return null
  const name = protocolText(protocol)
  const host = followedInterface(labels) ?? frontendIp
  const port = `${endText(host, frontendPort)}${name === "tcp" ? "" : `/${name}`}`
  const whose = owner === "cli" ? "" : ` --owner ${shellWord(owner)}`
  return `portmapper unmap -p ${shellWord(port)}${backendOption(listed)}${whose}${reaching}`
}

/** Where others have the same port: the other backends of a service, and what the port was refused for. */
const backendOption = (listed: ListedMapping): string => {
  const { service, state, backendIp, container = "" } = listed
  if (service === undefined && state !== "conflicted") return ""
  const backend = hasAddress(listed) ? backendIp : containerName(container)
  return backend === "" ? "" : ` --to ${shellWord(backend)}`
}

const protocolText = (number: number): string => protocolOfNumber(number) ?? String(number)

const endText = (address: string, port: number): string => {
  if (!address.includes(":")) return `${address}:${port}`
  const parsed = parseAddress(address)
  return `${Result.isSuccess(parsed) ? hostText(parsed.success) : `[${address}]`}:${port}`
}

/** The longest text that a page gets; a label may have 16 KiB. */
const longest = 2048

export const cut = (text: string): string => shortened(text, longest)

const cutOrNull = (text: string | undefined): string | null => (text === undefined ? null : cut(text))
