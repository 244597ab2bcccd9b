/** Services of which no backend takes connections, as a running plugin lists them. Pure. */
import type { ListedMapping } from "../../src/protocol/Driver.ts"
import { containerName, isResting, listedBackend, listedFrontend } from "../../src/protocol/ListedText.ts"
import { shellWord } from "../../src/protocol/ShellWord.ts"
import { type Check, ok, warn } from "./HostChecks.ts"

const name = "services"

/** A finding for each service without a backend that takes connections; else one for all of them. */
export const checkServices = (listed: ReadonlyArray<ListedMapping>): ReadonlyArray<Check> => {
  const services = Map.groupBy(
    listed.filter(({ service }) => service !== undefined),
    (mapping) => `service ${mapping.service} at ${listedFrontend(mapping)}`
  )
  if (services.size === 0) return [ok(name, "none here")]
  const idle = [...services].flatMap(([service, backends]) => idleCheck(service, backends))
  return idle.length > 0 ? idle : [ok(name, "each has a backend that takes connections")]
}

const idleCheck = (service: string, backends: ReadonlyArray<ListedMapping>): ReadonlyArray<Check> => {
  if (backends.some(takesConnections)) return []
  const [first] = [...backends].sort((a, b) => Number(isExplained(b)) - Number(isExplained(a)))
  if (first === undefined) return []
  const more = backends.length === 1 ? "" : ` (and ${backends.length - 1} more)`
  return [
    warn(
      name,
      `no backend of ${service} takes connections: ${nameOf(first)}: ${first.reason ?? first.state}${more}`,
      remedyOf(first)
    )
  ]
}

/** A connection wakes one that is asleep, and waits for one that is waking. */
const takesConnections = ({ slots, state }: ListedMapping): boolean =>
  isResting(state) || (slots === undefined ? state !== "conflicted" : slots.has > 0)

const isExplained = ({ reason }: ListedMapping): boolean => reason !== undefined

const nameOf = (backend: ListedMapping): string =>
  backend.container === undefined ? listedBackend(backend) : containerName(backend.container)

const remedyOf = (backend: ListedMapping): string => {
  switch (backend.state) {
    case "drained":
      return `portmapper undrain ${backend.container === undefined ? backend.backendIp : shellWord(nameOf(backend))}`
    case "waiting":
      return `docker inspect ${shellWord(nameOf(backend))} (a failing health check; portmapper.health=ignore does without), or start another backend`
    default:
      return "put that right, or start another backend: portmapper ls"
  }
}
