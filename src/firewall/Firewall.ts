/**
 * The kernel's redirections for published ports. A change is a transaction: it happens as a whole or not at all.
 * Nothing else on the host is touched, and nothing is read from it but what was put here.
 */
import { Context, Effect, Layer, Schema } from "effect"
import { IpNetwork } from "effect/net"
import { stepped } from "../memory/Steps.ts"
import type { Address } from "../protocol/Address.ts"
import { type Endpoint, endpointText, frontendText } from "../protocol/PortBinding.ts"
import type { Protocol } from "../protocol/Protocol.ts"

/**
 * New connections to `host:port` lead to `backend`, which is of the same family. An unspecified `host` stands for every
 * address of this host but its loopback ones; a rule for one address wins over it. Packets from a loopback or a
 * link-local IPv6 address are not redirected, since nobody forwards them: they are left to the socket that holds the port.
 * `allow`: only sources within these networks, others are dropped and counted; `undefined` lets every source in.
 */
export interface Redirect {
  readonly _tag: "Redirect"
  readonly protocol: Protocol
  readonly host: Address
  readonly port: number
  readonly backend: Endpoint
  readonly allow: ReadonlyArray<IpNetwork.IpNetwork> | undefined
}

/** Packets from outside to a port published on a loopback address are dropped, whatever the host's routes say. */
export interface Guard {
  readonly _tag: "Guard"
  readonly protocol: Protocol
  readonly host: Address
  readonly port: number
}

/**
 * The sources of a port that is relayed and not redirected, enforced before the packet reaches its socket. Sources on this
 * host's loopback addresses always get there: they are for the relay to judge.
 */
export interface Limit {
  readonly _tag: "Limit"
  readonly protocol: Protocol
  readonly host: Address
  readonly port: number
  readonly allow: ReadonlyArray<IpNetwork.IpNetwork>
}

export type Rule = Redirect | Guard | Limit

export interface Change {
  readonly add: ReadonlyArray<Rule>
  readonly remove: ReadonlyArray<Rule>
}

/**
 * `Denied`: no right to change the kernel's tables. `Unsupported`: the kernel or `nft` lacks what is needed. `Busy`: the
 * kernel had no buffers; the same change may succeed later. `Gone`: the table is no longer there. `Failed`: other.
 */
export class FirewallError extends Schema.TaggedError<FirewallError>()("FirewallError", {
  reason: Schema.Literals(["Denied", "Unsupported", "Busy", "Gone", "Failed"]),
  operation: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `${this.operation} failed: ${this.detail}`
  }
}

/**
 * What a rule counted since it was added: connections redirected (none for a `Limit`, whose relay counts them), and packets
 * dropped for their source.
 */
export interface Counted {
  readonly rule: Redirect | Limit
  readonly connections: number
  readonly dropped: number
}

/** A flow that has ended, by the ends of what its backend sends: to the client, or to the address it is masqueraded as. */
export interface RefusedFlow {
  readonly protocol: Protocol
  readonly backend: Endpoint
  readonly client: Endpoint
}

export class Firewall extends Context.Service<
  Firewall,
  {
    /**
     * One transaction: afterwards every rule of `add` holds and none of `remove` does, or nothing changed. A rule is known
     * by its frontend, guards apart from the others (see `ruleKey`): adding one that is there replaces it, removing one
     * that is not there succeeds. A rule that stands in both is replaced. Connections made before a change go on as they were.
     * Where someone removed the table, or `remove` did, adding fails as `Gone` until `replace` puts it back.
     */
    readonly apply: (change: Change) => Effect.Effect<void, FirewallError>
    /**
     * Replaces everything by these rules in one transaction; used at start, and to repair what others removed. What a rule
     * that was there and stays has counted is kept where it can be. Returns the rules that are there no more, as far as
     * they are known.
     */
    readonly replace: (rules: ReadonlyArray<Rule>) => Effect.Effect<ReadonlyArray<Rule>, FirewallError>
    /**
     * Reads the rules back from where they are enforced, with their counters. Of an allow-list it gives what it comes to:
     * networks of the frontend's family in rising order, none within another.
     */
    readonly read: Effect.Effect<
      { readonly rules: ReadonlyArray<Rule>; readonly counted: ReadonlyArray<Counted> },
      FirewallError
    >
    /**
     * From now on no packet of the backend begins such a flow anew: an Engine that masquerades what containers send would
     * lead it to the client from the published port again. Flows that are there are not touched. Holds for five days, as
     * long as the kernel remembers an idle connection, or until the table goes. Not among the rules: `read` does not
     * return it, and `replace` leaves it.
     */
    readonly refuse: (flows: ReadonlyArray<RefusedFlow>) => Effect.Effect<void, FirewallError>
    /** Fails as `Gone` where what was put here no longer stands as it was put; cheap enough for every second. */
    readonly check: Effect.Effect<void, FirewallError>
    /** Removes the whole table, whoever's process loaded it. */
    readonly remove: Effect.Effect<void, FirewallError>
  }
>()("portmapper/firewall/Firewall") {
  /** Where the kernel's tables can't be had: there is nothing to change, and a rule is refused with the reason. */
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

/** The in-memory table, for a test to look at and to make fail. */
export class MemoryFirewall extends Context.Service<
  MemoryFirewall,
  {
    /** Every rule as text, sorted; see `ruleText`. */
    readonly rules: () => ReadonlyArray<string>
    /** Every flow that is refused, in order, as `10.0.0.2:80 to 192.0.2.2:5000/tcp`. */
    readonly refused: () => ReadonlyArray<string>
    /** Every change is refused with this error until it is `undefined` again. */
    readonly refuse: (error: FirewallError | undefined) => void
    /** Someone else removes the table. */
    readonly flush: () => void
  }
>()("portmapper/firewall/MemoryFirewall") {}

/** What a rule is known by: a frontend is redirected or limited, never both, and may be guarded besides. */
export const ruleKey = ({ _tag, protocol, host, port }: Rule): string =>
  `${_tag === "Guard" ? "Guard" : "Frontend"} ${protocol} ${host.key} ${port}`

/** The rules that no other of `others` takes the place of. */
export const withoutRules = (
  rules: ReadonlyArray<Rule>,
  others: ReadonlyArray<Rule>
): ReadonlyArray<Rule> => {
  if (rules.length === 0 || others.length === 0) return rules
  const keys = new Set(others.map(ruleKey))
  return rules.filter((rule) => !keys.has(ruleKey(rule)))
}

/** `Redirect 0.0.0.0:8080/tcp -> 172.17.0.2:80 from 10.0.0.0/8`. */
export const ruleText = (rule: Rule): string => {
  const frontend = frontendText(rule.protocol, rule.host, rule.port)
  const backend = rule._tag === "Redirect" ? ` -> ${endpointText(rule.backend)}` : ""
  const allow =
    rule._tag === "Guard" || rule.allow === undefined ? "" : ` from ${rule.allow.map(networkText).join(",")}`
  return `${rule._tag} ${frontend}${backend}${allow}`
}

const networkText = (network: IpNetwork.IpNetwork): string => IpNetwork.format(network)

function makeMemoryFirewall() {
  let table: Map<string, Rule> | undefined = new Map()
  const refused: Array<string> = []
  let refusal: FirewallError | undefined

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
        return Effect.succeed(removed)
      }),
    read: Effect.map(standing("read"), (rules) => ({
      rules: [...rules.values()],
      counted: [...rules.values()].flatMap((rule) =>
        rule._tag === "Guard" ? [] : [{ rule, connections: 0, dropped: 0 }]
      )
    })),
    refuse: (flows) =>
      guarded("refuse", () =>
        Effect.map(standing("refuse"), () => {
          for (const { protocol, backend, client } of flows)
            refused.push(`${endpointText(backend)} to ${endpointText(client)}/${protocol}`)
        })
      ),
    check: Effect.asVoid(standing("check")),
    remove: guarded("remove", () => {
      table = undefined
      refused.length = 0
      return Effect.void
    })
  })

  const control = MemoryFirewall.of({
    rules: () => [...(table?.values() ?? [])].map(ruleText).sort(),
    refused: () => refused,
    refuse: (error) => {
      refusal = error
    },
    flush: () => {
      table = undefined
      refused.length = 0
    }
  })

  return { service, control }
}
