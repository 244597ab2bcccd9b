/**
 * Guards for the ports on loopback addresses that this process listens on itself: who may call it there is every user of
 * this host, and nobody on another one. They stand beside the mappings' rules, through every replacement of these.
 */
import { Context, Effect } from "effect"
import { type Firewall, type FirewallError, type Guard, withoutRules } from "./Firewall.ts"

export class OwnPorts extends Context.Service<
  OwnPorts,
  {
    /** From now on the ports that are listened on now are guarded, and no others of ours. */
    readonly guard: Effect.Effect<void, FirewallError>
    /** None is guarded any more. */
    readonly release: Effect.Effect<void, FirewallError>
  }
>()("portmapper/firewall/OwnPorts") {
  /** Where the kernel's tables can't be had there is nothing to guard by. */
  static readonly none = OwnPorts.of({ guard: Effect.void, release: Effect.void })
}

/**
 * The same firewall with these guards in every replacement, at first for what `listening` returns now: what is taken over
 * is listened on already, and what is connected meanwhile waits to be accepted.
 */
export const withOwnPorts = (
  firewall: Firewall["Service"],
  listening: () => ReadonlyArray<Guard>
): { readonly firewall: Firewall["Service"]; readonly ownPorts: OwnPorts["Service"] } => {
  let guards = listening()

  const change = (next: ReadonlyArray<Guard>) =>
    Effect.suspend(() => {
      const remove = guards
      guards = next
      return remove.length === 0 && next.length === 0
        ? Effect.void
        : firewall.apply({ add: next, remove: withoutRules(remove, next) })
    }).pipe(
      // Whoever puts the table back puts these back with it.
      Effect.catch((error) => (error.reason === "Gone" ? Effect.void : Effect.fail(error)))
    )

  return {
    firewall: { ...firewall, replace: (rules) => firewall.replace([...rules, ...guards]) },
    ownPorts: OwnPorts.of({ guard: Effect.suspend(() => change(listening())), release: change([]) })
  }
}
