/** Real traffic to mapped ports: from outside by the kernel's redirection, from the host itself by the relay. */
import { Effect, type Scope } from "effect"
import type { Lab } from "../../test/lab/Lab.ts"
import type { Namespace } from "../../test/lab/Namespace.ts"
import { backendPort, clientCount, containers } from "./Clients.ts"
import { type Binding, keyOf, textOf } from "./Ledger.ts"

/** Each container answers on the backend port of each client, with its name and the port. */
export const echoes = ({ get }: Lab): Effect.Effect<void, unknown, Scope.Scope> =>
  Effect.forEach(
    containers.flatMap(({ name }) =>
      (["tcp", "udp"] as const).flatMap((protocol) =>
        ["0.0.0.0", "::"].flatMap((host) =>
          Array.from({ length: clientCount }, (_, client) => ({
            name,
            protocol,
            host,
            port: backendPort(client)
          }))
        )
      )
    ),
    ({ name, protocol, host, port }) =>
      (get(name) as Namespace).agent.echo({ protocol, host, port, who: `${name}-${port}` }),
    { discard: true }
  )

/** What is wrong with the traffic of these mappings; nothing if each is answered by its own backend, or refused if drained. */
export const traffic = Effect.fnUntraced(function* (
  lab: Lab,
  bindings: ReadonlyArray<Binding>,
  isDrained: (binding: Binding) => boolean = () => false
) {
  const whoServes = ({ BackendIP, BackendPort }: Binding) => {
    const container = containers.find(({ ipv4, ipv6 }) => ipv4 === BackendIP || ipv6 === BackendIP)
    return `${container?.name}-${BackendPort}`
  }
  const found = yield* Effect.forEach(
    bindings.flatMap((binding) => waysTo(lab, binding)),
    ({ from, host, place, binding }) =>
      Effect.map(whoAnswers(from, host, binding), (who) => {
        // Any backend of a service may answer.
        const wanted = isDrained(binding)
          ? ["reset"]
          : bindings.filter((one) => keyOf(one) === keyOf(binding)).map(whoServes)
        return wanted.includes(who)
          ? []
          : [`${textOf(binding)} is served by ${who} ${place}, not ${wanted.join(" or ")}`]
      }),
    { concurrency: 8 }
  )
  return found.flat()
})

/** A port on an unspecified address is reached on the host's loopback address too. */
const waysTo = ({ client, host }: Lab, binding: Binding) => {
  const ipv6 = binding.FrontendIP.includes(":")
  const outside = {
    from: client,
    host: ipv6 ? "fd99::1" : "10.99.0.1",
    place: "from outside",
    binding
  }
  if (binding.FrontendIP !== "0.0.0.0" && binding.FrontendIP !== "::") return [outside]
  return [outside, { from: host, host: ipv6 ? "::1" : "127.0.0.1", place: "from the host", binding }]
}

const whoAnswers = ({ agent }: Namespace, host: string, { Proto, FrontendPort: port }: Binding) => {
  const asked = { host, port }
  return Proto === 6
    ? Effect.map(agent.tcp({ ...asked, close: "reset" }), ({ outcome, answer }) => answer?.who ?? outcome)
    : Effect.map(agent.udp(asked), ({ outcome, replies }) => replies[0]?.who ?? outcome)
}
