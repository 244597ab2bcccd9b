/**
 * Which container a text names, and the network by which a container is reached. Pure.
 *
 * Source: moby libnetwork/sandbox.go (`Endpoint.Less`, `getGatewayEndpoint`): which network has the default route.
 */
import { Result } from "effect"
import type { Labels } from "../../src/protocol/PortBinding.ts"
import { type Attachment, type Container, type Network, shortId } from "./Engine.ts"

export const networkLabel = "portmapper.network"

/** By name, by id, or by a prefix of an id that only one container has. */
export const findContainer = (
  text: string,
  all: ReadonlyArray<Container>
): Result.Result<Container, string> => {
  const exact = all.find(({ id, name }) => name === text || id === text)
  if (exact !== undefined) return Result.succeed(exact)
  const matching = /^[0-9a-f]+$/.test(text) ? all.filter(({ id }) => id.startsWith(text)) : []
  const [only, another] = matching
  if (only === undefined) return Result.fail(`no such container: ${text}`)
  return another === undefined
    ? Result.succeed(only)
    : Result.fail(
        `${text} matches the ids of several containers: ${matching.map(({ name }) => name).join(", ")}`
      )
}

/**
 * The attachment by which a container is reached: in the network of the label `portmapper.network`; else in that of
 * its default route, by which its answers leave. A container that shares another's network is reached by the
 * other's. The relay reaches containers on the host's own bridges, whatever the default route.
 */
export const attachmentOf = (
  container: Container,
  labels: Labels,
  all: ReadonlyArray<Container>
): Result.Result<Attachment, string> => {
  const { networkMode } = container
  const unreachable = withoutNetwork(networkMode)
  if (unreachable !== undefined) return Result.fail(unreachable)
  if (networkMode.startsWith("container:")) {
    const id = networkMode.slice("container:".length)
    const other = all.find((candidate) => candidate.id === id)
    if (other?.running !== true)
      return Result.fail(`it shares the network of ${other?.name ?? shortId(id)}, which is not running`)
    return other.networkMode.startsWith("container:")
      ? Result.fail("it shares a shared network")
      : attachmentOf(other, labels, all)
  }
  const reachable = container.attachments
    .filter(({ v4, v6 }) => v4 !== undefined || v6 !== undefined)
    .sort(byDefaultRoute)
  const named = (text: string) => reachable.find(({ network: { id, name } }) => name === text || id === text)
  const network = labels.get(networkLabel)
  const relayed = labels.get("portmapper.mode") === "proxy"
  if (network === undefined) {
    const [first] = reachable
    const found = (relayed && reachable.find(isOnBridge)) || first
    return found === undefined ? Result.fail("it has no address in any network") : reachedBy(found, relayed)
  }
  const found = named(network)
  const names = reachable.map(({ network: { name } }) => name).join(", ") || "none"
  return found === undefined
    ? Result.fail(`${networkLabel}=${network}: it has no address in that network; its networks are ${names}`)
    : reachedBy(found, relayed)
}

const withoutNetwork = (networkMode: string): string | undefined => {
  if (networkMode === "host") return "it is in the host's own network, where its ports are the host's already"
  return networkMode === "none" ? "it has no network (--network none)" : undefined
}

/** The network of a container that does not run, of which the Engine shows neither addresses nor the default route. */
export const asleepIn = (
  { networkMode, attachments }: Container,
  labels: Labels
): Result.Result<Pick<Network, "hostBinding">, string> => {
  const unreachable = withoutNetwork(networkMode)
  if (unreachable !== undefined) return Result.fail(unreachable)
  if (networkMode.startsWith("container:"))
    return Result.fail("it shares another container's network, so no client can wake it")
  const named = labels.get(networkLabel)
  const found =
    attachments.find(({ network: { id, name } }) => name === named || id === named) ??
    [...attachments].sort(byDefaultRoute)[0]
  return Result.succeed(found?.network ?? { hostBinding: undefined })
}

/** A container answers redirected packets by its default route only, and an internal network answers none. */
const reachedBy = (attachment: Attachment, relayed: boolean): Result.Result<Attachment, string> => {
  const { name, driver, internal } = attachment.network
  if (!isOnBridge(attachment))
    return Result.fail(
      `its network ${name} (${driver}) bypasses the host: connect it to a bridge network, too, and route its default route there; the relay reaches it by any bridge network (portmapper.mode=proxy)`
    )
  return internal && !relayed
    ? Result.fail(
        `its network ${name} is internal, so only the host reaches it: connect it to another bridge network, too, or let the relay serve it (portmapper.mode=proxy)`
      )
    : Result.succeed(attachment)
}

const isOnBridge = ({ network: { driver } }: Attachment): boolean =>
  driver !== "macvlan" && driver !== "ipvlan" && driver !== "overlay"

/** The network of the default route comes first. An internal one has none, whatever its priority. */
const byDefaultRoute = (a: Attachment, b: Attachment): number =>
  Number(a.network.internal) - Number(b.network.internal) ||
  Number(b.gateways > 0) - Number(a.gateways > 0) ||
  b.gatewayPriority - a.gatewayPriority ||
  b.gateways - a.gateways ||
  (a.network.name < b.network.name ? -1 : 1)
