/**
 * Guards for the ports on loopback addresses that this process itself listens on: every user of this host may
 * connect to them, and no other host. `replace` keeps them beside the mappings' rules.
 */
import { Context, Effect } from "effect"
import { type Firewall, type FirewallError, type Guard, withoutRules } from "./Firewall.ts"

export class OwnPorts extends Context.Service<
  OwnPorts,
  {
    /** Guards the ports that this process listens on now, and drops the guards of its other ports. */
    readonly guard: Effect.Effect<void, FirewallError>
    /** Removes all guards. */
    readonly release: Effect.Effect<void, FirewallError>
  }
>()("portmapper/firewall/OwnPorts") {
  /** For hosts where the kernel's tables are not available. */
  static readonly none = OwnPorts.of({ guard: Effect.void, release: Effect.void })
}

/**
 * Wraps a firewall so that each replacement includes these guards, at first for what `listening` returns now: a
 * socket that was taken over is listening already, and connections made meanwhile wait to be accepted.
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
      // The replacement that restores the table includes these guards.
      Effect.catch((error) => (error.reason === "Gone" ? Effect.void : Effect.fail(error)))
    )

  return {
    firewall: { ...firewall, replace: (rules) => firewall.replace([...rules, ...guards]) },
    ownPorts: OwnPorts.of({ guard: Effect.suspend(() => change(listening())), release: change([]) })
  }
}
