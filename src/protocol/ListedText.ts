/** The two ends of a listed mapping as text, and its container. */
import { Result } from "effect"
import { hostText, parseAddress, unspecified } from "./Address.ts"
import type { ListedMapping } from "./Driver.ts"
import { followedInterface } from "./FollowLabels.ts"
import { protocolOfNumber } from "./Protocol.ts"
import { isRestingPlace } from "./RestingPlace.ts"

/**
 * `0.0.0.0:8080/tcp`; `eth0:8080/tcp` while the interface has no address; `8080/tcp` of another host that says none; a
 * mapping without a host port (mode `routed`) is `-/tcp`.
 */
export const listedFrontend = ({ protocol, frontendIp, frontendPort, labels }: ListedMapping): string => {
  const name = protocolOfNumber(protocol) ?? `${protocol}`
  if (frontendPort === 0) return `-/${name}`
  const host = frontendIp === "" ? followedInterface(labels) : hostOf(frontendIp)
  return host === undefined ? `${frontendPort}/${name}` : `${host}:${frontendPort}/${name}`
}

/** `-` if it has no address, as of a container that does not run. */
export const listedBackend = (mapping: ListedMapping): string =>
  hasAddress(mapping) ? `${hostOf(mapping.backendIp)}:${mapping.backendPort}` : "-"

/** Whether its backend has an address that leads anywhere. */
export const hasAddress = ({ backendIp, state }: Pick<ListedMapping, "backendIp" | "state">): boolean =>
  backendIp !== "" && !isResting(state) && !isRestingText(backendIp)

/** Parses only what could be one: it is asked of every mapping. */
const isRestingText = (text: string): boolean =>
  text.startsWith("100::") && isRestingPlace(Result.getOrElse(parseAddress(text), () => unspecified(6)))

/** Whether its container does not run, or not yet, and a client starts it. */
export const isResting = (state: ListedMapping["state"]): boolean => state === "asleep" || state === "waking"

/** Its name, or else its id. */
export const containerName = (container: string): string => container.replace(/\/[0-9a-f]{12}$/, "")

const hostOf = (text: string): string =>
  Result.match(parseAddress(text), { onSuccess: hostText, onFailure: () => text })
