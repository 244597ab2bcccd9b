/**
 * The kernel's redirections for published ports. A change is a transaction: all of it happens, or nothing. It
 * touches nothing else on the host, and reads only what it added itself.
 */
import { Context, Effect, Layer, Schema } from "effect"
import { IpNetwork } from "effect/net"
import { stepped } from "../memory/Steps.ts"
import { type Endpoint, endpointText, frontendText, type PublishedPort } from "../protocol/PortBinding.ts"
import type { Protocol } from "../protocol/Protocol.ts"
import { isIdle, type SlotShare, slotsText } from "../protocol/Slots.ts"

/**
 * New connections to `host:port` go to `backend`, which is of the same family. An unspecified `host` means every
 * address of this host but its loopback ones; a rule for one address wins over it. Left to the socket that holds
 * the port are packets from a loopback or a link-local IPv6 address, since the kernel does not forward them, and
 * packets from the backend's own address (except SCTP, which no relay serves), since not every bridge sends a packet
 * back to the port it came from. `allow`: only sources within these networks, others are dropped and counted;
 * `undefined` allows every source.
 */
export interface Redirect extends PublishedPort {
  readonly _tag: "Redirect"
  readonly backend: Endpoint
  readonly allow: ReadonlyArray<IpNetwork.IpNetwork> | undefined
  /**
   * The backend's slots where the frontend is a service's: then only new connections that pick one of them go to
   * it. Rules of the same service differ in backend and slots alone.
   */
  readonly share?: SlotShare | undefined
  /**
   * New connections are left to the socket, as they are where all rules of a service have no slots; established
   * ones continue. `read` does not return a rule that redirects nothing, or returns its allow-list as a `Limit`.
   */
  readonly idle?: true | undefined
  /**
   * How many new connections to the frontend may begin in a second, by all its rules together; further ones are
   * dropped and counted.
   */
  readonly rate?: number | undefined
}

/** Drops packets from outside to a port published on a loopback address, whatever the host's routes say. */
export interface Guard extends PublishedPort {
  readonly _tag: "Guard"
}

/**
 * The allowed sources of a port that is relayed and not redirected, enforced before the packet reaches its socket.
 * Sources on this host's loopback addresses always pass: the relay decides about them.
 */
export interface Limit extends PublishedPort {
  readonly _tag: "Limit"
  readonly allow: ReadonlyArray<IpNetwork.IpNetwork>
}

export type Rule = Redirect | Guard | Limit

export interface Change {
  readonly add: ReadonlyArray<Rule>
  readonly remove: ReadonlyArray<Rule>
}

/**
 * `Denied`: no right to change the kernel's tables. `Unsupported`: the kernel or `nft` lacks a feature. `Busy`: the
 * kernel had no buffers; the same change may succeed later. `Gone`: the table no longer exists. `Changed`: another
 * process changed it. `Failed`: other.
 */
export class FirewallError extends Schema.TaggedError<FirewallError>()("FirewallError", {
  reason: Schema.Literals(["Denied", "Unsupported", "Busy", "Gone", "Changed", "Failed"]),
  operation: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `${this.operation} failed: ${this.detail}`
  }
}

/**
 * What a rule counted since it was added: connections redirected (none for a `Limit`, whose relay counts them), and
 * packets dropped because of their source, or because of the rate. Of a service's rules, one has the drops of all.
 */
export interface Counted {
  readonly rule: Redirect | Limit
  readonly connections: number
  readonly dropped: number
  readonly overRate: number
}

/**
 * A flow that has ended, by the two ends of its backend's packets: to the client, or to the address it is
 * masqueraded as.
 */
export interface RefusedFlow {
  readonly protocol: Protocol
  readonly backend: Endpoint
  readonly client: Endpoint
}

export class Firewall extends Context.Service<
  Firewall,
  {
    /**
     * One transaction: afterwards every rule of `add` is in place and none of `remove`, or nothing changed. Its
     * frontend identifies a rule, guards apart from the others (see `ruleKey`): adding an existing rule replaces
     * it, removing a missing one succeeds. A rule in both lists is replaced. Connections made before a change
     * continue as they were. If another process removed the table, or `remove` did, adding fails as `Gone` until
     * `replace` puts it back.
     */
    readonly apply: (change: Change) => Effect.Effect<void, FirewallError>
    /**
     * Replaces everything by these rules in one transaction; used at start, and to repair what other processes
     * removed. Keeps the counters of rules that stay where possible. Returns the rules that were removed, as far as
     * they are known.
     */
    readonly replace: (rules: ReadonlyArray<Rule>) => Effect.Effect<ReadonlyArray<Rule>, FirewallError>
    /**
     * Reads the rules back from where they are enforced, with their counters. An allow-list is returned in normal
     * form: networks of the frontend's family in ascending order, none within another.
     */
    readonly read: Effect.Effect<
      { readonly rules: ReadonlyArray<Rule>; readonly counted: ReadonlyArray<Counted> },
      FirewallError
    >
    /**
     * From now on drops packets of the backend that would begin such a flow anew: an Engine that masquerades the
     * containers' packets would send it to the client from the published port again. Existing flows are not
     * touched. Lasts five days, as long as the kernel keeps an idle connection, or until the table is removed. Not
     * one of the rules: `read` does not return it, and `replace` keeps it.
     */
    readonly refuse: (flows: ReadonlyArray<RefusedFlow>) => Effect.Effect<void, FirewallError>
    /**
     * Fails as `Gone` where the table no longer exists as it was created, and as `Changed`, until `replace`, where
     * another process changed anything in it; cheap enough for ten times a second and for every call.
     */
    readonly check: Effect.Effect<void, FirewallError>
    /** Removes the whole table, even if another process loaded it. */
    readonly remove: Effect.Effect<void, FirewallError>
  }
>()("portmapper/firewall/Firewall") {
  /**
   * For hosts where the kernel's tables are not available: there is nothing to change, and a rule is refused with
   * the reason.
   */
  static readonly layerNone = (reason: string) => {
    const refuse = (rules: ReadonlyArray<Rule>) =>
      rules.length === 0
        ? Effect.succeed([])
        : Effect.fail(new FirewallError({ reason: "Unsupported", operation: "redirecting", detail: reason }))
    return Layer.succeed(Firewall, {
      apply: ({ add }) => Effect.asVoid(refuse(add)),
      replace: refuse,
      read: Effect.succeed({ rules: [], counted: [] }),
      refuse: () => Effect.void,
      check: Effect.void,
      remove: Effect.void
    })
  }

  static readonly layerMemory = Layer.unwrap(
    Effect.map(Effect.sync(makeMemoryFirewall), (firewall) =>
      Layer.merge(Layer.succeed(Firewall, firewall.service), Layer.succeed(MemoryFirewall, firewall.control))
    )
  )
}

/** The in-memory table, for a test to inspect and to make fail. */
export class MemoryFirewall extends Context.Service<
  MemoryFirewall,
  {
    /** Every rule as text, sorted; see `ruleText`. */
    readonly rules: () => ReadonlyArray<string>
    /** Every refused flow, in order, as `10.0.0.2:80 to 192.0.2.2:5000/tcp`. */
    readonly refused: () => ReadonlyArray<string>
    /** Refuses every change with this error until it is `undefined` again. */
    readonly refuse: (error: FirewallError | undefined) => void
    /** Removes the table, as another process would. */
    readonly flush: () => void
    /** Removes what is in it, as another process would. */
    readonly flushElements: () => void
  }
>()("portmapper/firewall/MemoryFirewall") {}

/**
 * The key of a rule: a frontend is redirected or limited, never both, and may have a guard besides. A service's
 * frontend is redirected once for each backend.
 */
export const ruleKey = (rule: Rule): string => {
  const { _tag, protocol, host, port } = rule
  const key = `${_tag === "Guard" ? "Guard" : "Frontend"} ${protocol} ${host.key} ${port}`
  return _tag === "Redirect" && rule.share !== undefined ? `${key} ${endpointText(rule.backend)}` : key
}

/** The rules that no rule of `others` replaces. */
export const withoutRules = (
  rules: ReadonlyArray<Rule>,
  others: ReadonlyArray<Rule>
): ReadonlyArray<Rule> => {
  if (rules.length === 0 || others.length === 0) return rules
  const keys = new Set(others.map(ruleKey))
  return rules.filter((rule) => !keys.has(ruleKey(rule)))
}

/** A redirection that leaves all new connections to the socket. */
export const redirectsNothing = (rule: Rule): boolean => rule._tag === "Redirect" && isIdle(rule)

/** `Redirect 0.0.0.0:8080/tcp -> 172.17.0.2:80 from 10.0.0.0/8`, on a service's port with `slots 0-31 of 64`. */
export const ruleText = (rule: Rule): string => {
  const frontend = frontendText(rule)
  const backend = rule._tag === "Redirect" ? ` -> ${endpointText(rule.backend)}` : ""
  const allow =
    rule._tag === "Guard" || rule.allow === undefined
      ? ""
      : ` from ${rule.allow.map((network) => IpNetwork.format(network)).join(",")}`
  const share = rule._tag === "Redirect" ? rule.share : undefined
  const slots =
    share === undefined ? "" : ` slots ${slotsText(share.slots)} of ${share.size} by ${share.balance}`
  const rate = rule._tag === "Redirect" && rule.rate !== undefined ? ` at most ${rule.rate}/s` : ""
  return `${rule._tag} ${frontend}${backend}${slots}${allow}${rate}`
}

function makeMemoryFirewall() {
  let table: Map<string, Rule> | undefined = new Map()
  const refused: Array<string> = []
  let refusal: FirewallError | undefined
  let changed = false

  const guarded = <A>(operation: string, change: () => Effect.Effect<A, FirewallError>) =>
    stepped(
      `Firewall.${operation}`,
      (failure) => new FirewallError({ reason: "Failed", operation, detail: failure.message }),
      () => (refusal === undefined ? change() : Effect.fail(refusal))
    )

  const gone = (operation: string) =>
    Effect.fail(new FirewallError({ reason: "Gone", operation, detail: "the table is gone" }))

  const standing = (operation: string): Effect.Effect<Map<string, Rule>, FirewallError> =>
    Effect.suspend(() => (table === undefined ? gone(operation) : Effect.succeed(table)))

  const service = Firewall.of({
    apply: (change) =>
      guarded("apply", () => {
        if (table === undefined) return change.add.length === 0 ? Effect.void : gone("apply")
        for (const rule of change.remove) table.delete(ruleKey(rule))
        for (const rule of change.add) table.set(ruleKey(rule), rule)
        return Effect.void
      }),
    replace: (rules) =>
      guarded("replace", () => {
        const removed = withoutRules([...(table?.values() ?? [])], rules)
        table = new Map(rules.map((rule) => [ruleKey(rule), rule]))
        changed = false
        return Effect.succeed(removed)
      }),
    read: Effect.map(standing("read"), (all) => {
      const rules = [...all.values()].filter((rule) => !redirectsNothing(rule))
      const counted = rules.flatMap((rule) =>
        rule._tag === "Guard" ? [] : [{ rule, connections: 0, dropped: 0, overRate: 0 }]
      )
      return { rules, counted }
    }),
    refuse: (flows) =>
      guarded("refuse", () =>
        Effect.map(standing("refuse"), () => {
          for (const { protocol, backend, client } of flows)
            refused.push(`${endpointText(backend)} to ${endpointText(client)}/${protocol}`)
        })
      ),
    check: Effect.flatMap(standing("check"), () => {
      const detail = "another process changed the table"
      return changed
        ? Effect.fail(new FirewallError({ reason: "Changed", operation: "check", detail }))
        : Effect.void
    }),
    remove: guarded("remove", () => {
      table = undefined
      refused.length = 0
      return Effect.void
    })
  })

  const control = MemoryFirewall.of({
    rules: () =>
      [...(table?.values() ?? [])]
        .filter((rule) => !redirectsNothing(rule))
        .map(ruleText)
        .sort(),
    refused: () => refused,
    refuse: (error) => {
      refusal = error
    },
    flush: () => {
      table = undefined
      refused.length = 0
    },
    flushElements: () => {
      table?.clear()
      changed = true
    }
  })

  return { service, control }
}
