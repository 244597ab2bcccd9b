/**
 * Faults, put into the sources one at a time: the harness must find each. A fault finds its place by the syntax
 * tree: the one node within the declaration `within` whose text is `find`, however it is laid out.
 */
import { parseSync } from "vite"

export type Search = "harness" | "lab" | "cluster"

export interface Mutation {
  readonly name: string
  readonly file: string
  readonly within: string
  readonly find: string
  readonly put: string
  /** Which search finds it: the harness in memory, the one on a real host, or the simulated cluster. */
  readonly search: Search
}

/** The source with the fault in it; fails where the node is missing or not unique. */
export const mutate = (source: string, { name, file, within, find, put }: Mutation): string => {
  const { program, errors } = parseSync(file, source)
  if (errors.length > 0) throw new Error(`${name}: ${file} can't be parsed`)
  const declared = nodesOf(program).filter((node) => nameOf(node) === within)
  const places = new Map(
    declared
      .flatMap(nodesOf)
      .filter(({ start, end }) => plain(source.slice(start, end)) === plain(find))
      .map(({ start, end }) => [start, end])
  )
  const [place] = places
  if (place === undefined || places.size > 1)
    throw new Error(`${name}: ${places.size} places in ${within} of ${file} for ${find}`)
  return source.slice(0, place[0]) + put + source.slice(place[1])
}

/** Ignores layout, and the commas and semicolons that a formatter adds. */
const plain = (text: string): string => text.replaceAll(/\s+/g, "").replaceAll(/,(?=[)\]}])|;$/g, "")

interface Node {
  readonly start: number
  readonly end: number
  readonly id?: unknown
  readonly key?: unknown
}

const isNode = (value: unknown): value is Node =>
  typeof value === "object" && value !== null && "start" in value && "end" in value && "type" in value

const nodesOf = (node: unknown): ReadonlyArray<Node> => {
  if (Array.isArray(node)) return node.flatMap(nodesOf)
  if (!isNode(node)) return []
  return [node, ...Object.values(node).flatMap(nodesOf)]
}

/** The name that a declaration, a class, a method or a property of an object declares. */
const nameOf = ({ id, key }: Node): unknown => {
  const named = id ?? key
  return isNode(named) && "name" in named ? named.name : undefined
}

type Fault = readonly [name: string, within: string, find: string, put: string]

const faultsOf =
  (file: string, search: Search = "harness") =>
  (faults: ReadonlyArray<Fault>): ReadonlyArray<Mutation> =>
    faults.map(([name, within, find, put]) => ({ name, file, within, find, put, search }))

export const mutations: ReadonlyArray<Mutation> = [
  ...faultsOf("src/mapper/plan/Plan.ts")([
    ["planner-asks-for-forwarding-despite-marks", "planEntry", "!capabilities.marksAccepted", "true"],
    [
      "planner-drops-the-allow-list-of-a-relayed-port",
      "rulesOf",
      'relays === "everything"',
      'relays === "loopback"'
    ],
    [
      "planner-leaves-loopback-ports-unguarded",
      "relay",
      "capabilities.natUnavailable === undefined",
      "capabilities.natUnavailable !== undefined"
    ],
    ["planner-relays-everything-of-a-redirected-port", "planEntry", '"loopback"', '"everything"'],
    [
      "rule7-redirects-a-zoned-frontend",
      "notRedirectable",
      'host.zone !== "" || backend.address.zone !== ""',
      'host.zone !== "" && backend.address.zone !== ""'
    ],
    [
      "planner-claims-ipv6-where-there-is-none",
      "planEntry",
      "!capabilities.ipv6",
      "capabilities.ipv6 === undefined"
    ],
    [
      "planner-redirects-to-a-loopback-address",
      "notRedirectable",
      "isLoopback(backend.address) || isUnspecified(backend.address)",
      "isUnspecified(backend.address)"
    ],
    ["rule7-succeeds-with-nothing-served", "planIn", "reasons.length > 0", "reasons.length > 1"]
  ]),
  ...faultsOf("src/ports/HeldPorts.ts")([
    [
      "rule1-keeps-sockets-of-a-port-that-was-not-free",
      "holdAll",
      "Exit.isSuccess(exit)",
      "Exit.isSuccess(exit) || made.length < 2"
    ],
    [
      "rule6-one-address-rests-on-anothers-socket",
      "stands",
      "covers(socket.host, frontend.host)",
      "socket.host.family === frontend.host.family"
    ]
  ]),
  ...faultsOf("src/ports/PortAllocator.ts")([
    ["rule2-other-words-for-a-port-in-use", "refusal", '"address already in use"', '"EADDRINUSE"'],
    [
      "rule2-other-words-for-a-published-port",
      "PortAllocated",
      "} failed: port is already allocated${",
      "} failed: the port is taken${"
    ],
    [
      "rule2-other-words-for-an-exhausted-range",
      "PortsExhausted",
      "} failed: all ports are allocated in ${",
      "} failed: no port is free in ${"
    ],
    [
      "rule5-always-begins-at-the-first-port",
      "remember",
      "next.set(key, port)",
      "port > 65535 && next.set(key, port)"
    ],
    [
      "rule5-does-not-begin-again-at-the-start",
      "reserveWithin",
      "[range.first, start - 1]",
      "[start, start - 1]"
    ],
    ["rule5-gives-reserved-ports", "reserve", "[reserved, ...except]", "except"],
    [
      "rule5-gives-up-at-the-first-port-in-use",
      "reserveWithin",
      'tried.failure.error.reason !== "InUse"',
      'tried.failure.error.reason !== "Denied"'
    ],
    [
      "rule5-substitutes-an-exact-port-in-use",
      "reserve",
      "reserveExact(held, frontends, ports.port, beside)",
      'Effect.catch(reserveExact(held, frontends, ports.port, beside), () => reserveWithin(frontends, { name: "ephemeral", range: ephemeral }, [reserved]))'
    ]
  ]),
  ...faultsOf("src/mapper/PortMapper.ts")([
    [
      "rule1-one-entry-gets-the-next-port",
      "mapGroupsIn",
      "plan.entries.map((each) => bindingOf(each, ports[index] ?? 0))",
      "plan.entries.map((each, at) => bindingOf(each, (ports[index] ?? 0) + (at > 1 ? 1 : 0)))"
    ],
    [
      "store-records-the-answer-beside-the-lock",
      "publish",
      "changing(context, Effect.uninterruptible(settle(context, delivery.answered)))",
      "Effect.uninterruptible(settle(context, delivery.answered))"
    ],
    [
      "undo-forgets-interruptions",
      "publish",
      "Exit.isSuccess(exit)",
      "Exit.isSuccess(exit) || Exit.hasInterrupts(exit)"
    ],
    [
      "undo-passes-over-interruptions",
      "applyAll",
      "delivery.closed ? Effect.interrupt : interruption",
      "Effect.void"
    ],
    ["rule3-keeps-the-port-it-gave-up", "applyAll", "replaced.size > 0", "replaced.size > 9"],
    [
      "rule4-fails-to-unmap-what-is-not-mapped",
      "unmapPortsIn",
      "release(context, releasedBy(context.mappings, bindings))",
      'releasedBy(context.mappings, bindings).length > 0 ? release(context, releasedBy(context.mappings, bindings)) : Effect.fail({ _tag: "UnmapError", message: "not mapped" } as never)'
    ]
  ]),
  ...faultsOf("src/mapper/apply/Apply.ts")([
    [
      "rule3-answers-a-routed-mapping-with-port-0",
      "apply",
      'asked._tag === "Exact" ? asked.port : 0',
      'asked._tag === "Exact" && create.length > 0 ? asked.port : 0'
    ],
    [
      "store-leaves-the-record-of-what-failed",
      "serve",
      "store.remove(created.map(({ mapping }) => mapping))",
      "Effect.void"
    ],
    [
      "undo-leaves-redirections",
      "redirect",
      "{ add: before, remove: withoutRules(add, [...before, ...beside]) }",
      "{ add: before, remove: [] }"
    ],
    ["undo-leaves-the-first-step", "undoing", "undo.reverse()", "undo.slice(1).reverse()"],
    ["undo-puts-no-policy-back", "serve", "before[at]", "{}"],
    [
      "undo-forgets-a-policy-whose-answer-is-lost",
      "serve",
      "Object.assign(entry, { mapping, status, resources })",
      'Object.assign(entry, { mapping: status._tag === "Answered" ? entry.mapping : mapping, status, resources })'
    ],
    [
      "undo-leaves-the-relay-open",
      "serve",
      "undo.push(() => relayAsBefore(context, entry, route, before))",
      "undo.push(() => Effect.void)"
    ],
    ["undo-lets-nothing-come-back-from-a-failure", "evict", "putBack(context, before)", "Effect.void"]
  ]),
  ...faultsOf("src/mapper/apply/Release.ts")([
    [
      "store-keeps-the-record-of-what-is-unmapped",
      "releaseTogether",
      "store.remove(removed, records)",
      "store.remove(removed.slice(1), records)"
    ],
    [
      "undo-forgets-what-the-kernel-did-not-give-up",
      "releaseTogether",
      "Effect.tapCause(applyRules(context, change), () => recordAgain(context, before))",
      "applyRules(context, change)"
    ],
    ["rule13-lets-nothing-take-over", "release", "successionsOf(context, entries)", "[]"],
    [
      "rule13-takes-over-without-a-record",
      "releaseTogether",
      "store.remove(removed, records)",
      "store.remove(removed)"
    ]
  ]),
  ...faultsOf("src/mapper/apply/Settle.ts")([
    [
      "store-never-records-the-answer",
      "commit",
      "recordEntries(store, unrecorded)",
      'store.put(unrecorded.map(({ mapping }) => ({ mapping, state: "applied" })))'
    ],
    ["undo-takes-what-took-the-place-of-an-answered-one", "commit", "answered.map(current)", "answered"]
  ]),
  ...faultsOf("src/mapper/plan/Standby.ts")([
    ["rule13-refuses-the-second-attachment", "areOfOneContainer", "one !== other", "false"],
    ["rule13-lets-an-attachment-stand-behind-itself", "areOfOneContainer", "one !== other", "true"],
    ["rule13-takes-over-another-socket", "successionsOf", "from.resources.hold", "undefined"]
  ]),
  ...faultsOf("src/mapper/plan/Claims.ts")([
    [
      "rule3-does-not-know-what-is-mapped",
      "mappedAlready",
      "leadingTo(held, entry)",
      "(state.size() > 1 ? undefined : leadingTo(held, entry))"
    ],
    [
      "rule4-unmaps-whatever-the-backend",
      "releasedBy",
      "meansBackend(backend, mapping.backend)",
      "mapping.port > 0"
    ],
    [
      "rule6-takes-over-the-port-of-another-backend",
      "leadingTo",
      "sameBackend(entry.mapping.backend, backend)",
      "entry.mapping.backend.port === backend.port"
    ]
  ]),
  ...faultsOf("src/ports/PortTable.ts")([
    ["rule5-goes-past-the-end-of-a-range", "firstFree", "port <= range.last", "port <= range.last + 1"]
  ]),
  ...faultsOf("src/protocol/Address.ts")([
    [
      "rule6-families-conflict",
      "covers",
      "holder.family === address.family && isUnspecified(holder)",
      "isUnspecified(holder)"
    ]
  ]),
  ...faultsOf("src/mapper/model/Mapping.ts")([
    ["rule6-the-unspecified-address-sees-no-other", "colliding", "covers(host, mapping.host)", "false"],
    ["undo-keeps-an-undelivered-mapping", "transitions", "pending > 1", "pending > 0"],
    ["undo-takes-what-another-call-has-answered", "transitions", "pending > 1", "pending > 9"]
  ]),
  ...faultsOf("src/protocol/Answers.ts")([
    [
      "rule7-answers-an-address-that-was-not-given",
      "wireBinding",
      "binding.entry.requestedAddress",
      "binding.entry.host.text"
    ]
  ]),
  ...faultsOf("src/protocol/Requests.ts")([
    ["rule7-takes-entries-that-differ-in-port", "groupOf", "index > 0", "index > 7"]
  ]),
  ...faultsOf(
    "adapters/linux/nft/NftFirewall.ts",
    "lab"
  )([
    [
      "ruleset-leaves-the-allow-list-of-what-is-removed",
      "change",
      "removed.push(...missing(elementsOf(replaced), elements))",
      'removed.push(...missing(elementsOf(replaced), elements).filter(({ set }) => set.kind !== "allowed"))'
    ]
  ]),
  ...faultsOf(
    "adapters/linux/nft/RuleElements.ts",
    "lab"
  )([
    [
      "ruleset-takes-one-ipv6-address-for-all",
      "elementsOf",
      'rule._tag !== "Guard" && isUnspecified(host)',
      'rule._tag !== "Guard" && (isUnspecified(host) || host.family === 6)'
    ],
    ["ruleset-redirects-backends-to-themselves", "elementsOf", "isRelayed(protocol)", "!isRelayed(protocol)"],
    [
      "ruleset-writes-ports-the-other-way-round",
      "writePort",
      "bytes[at] = port >> 8",
      "bytes[at] = port & 255"
    ]
  ]),
  ...faultsOf("src/mapper/plan/Services.ts")([
    ["services-let-callers-of-another-kind-join", "serviceOf", 'owner.split(":", 1)[0]', '"any"'],
    ["services-let-another-policy-join", "refusalOf", "rule === undefined", "true"],
    [
      "services-let-another-policy-come-back",
      "areFellows",
      "differing(other, one.mode, one.labels) === undefined",
      "true"
    ],
    ["services-spread-all-slots-anew", "spreadOver", "widened(share.slots, share.size, size)", "[]"],
    ["services-forget-the-balance", "join", 'policy.balance ?? "random"', '"random"'],
    ["idle-backends-keep-their-slots", "join", "takesTraffic({ labels, drained })", "true"],
    ["drained-backends-keep-their-slots", "partsOf", "takesTraffic(mapping)", "true"]
  ]),
  ...faultsOf("src/mapper/plan/Plan.ts")([
    ["idle-services-admit-nobody-from-outside", "admissionBeside", "share?.idle || idle", "idle"]
  ]),
  ...faultsOf("src/mapper/apply/Drain.ts")([
    ["drains-are-not-recorded", "updatesOf", "true", "false"],
    [
      "drained-ports-are-redirected",
      "resourcesAfter",
      "resourcesOf(planned, policy, mapping, entry.resources.hold)",
      "entry.resources"
    ]
  ]),
  ...faultsOf("src/mapper/plan/Claims.ts")([
    [
      "services-share-the-socket-of-another-address",
      "holdersInTheWay",
      "holder.mapping.host.key === host.key",
      "true"
    ],
    [
      "services-take-a-backend-of-another-service-for-their-own",
      "mappedAlready",
      "there?.mapping.share?.service === service",
      "true"
    ],
    [
      "services-keep-a-backend-that-is-routed",
      "replacedBy",
      "state.get(frontend) ?? state.get(memberKey(frontend, entry.backend))",
      "state.get(frontend)"
    ],
    [
      "rule10-gives-away-the-port-of-an-answered-mapping-in-conflict",
      "answeredInTheWay",
      "inTheWay.filter((entry) => entry !== own && !isMember(entry, service))",
      "[]"
    ]
  ]),
  ...faultsOf("src/mapper/plan/Change.ts")([
    ["services-do-not-record-who-gave-up-slots", "updateOfShare", "true", "false"]
  ]),
  ...faultsOf("src/mapper/apply/Apply.ts")([
    [
      "services-lose-their-allow-list-with-a-refused-idle-backend",
      "redirect",
      "[...before, ...beside]",
      "before"
    ]
  ]),
  ...faultsOf("src/mapper/apply/Release.ts")([
    ["services-keep-the-slots-of-a-released-backend", "releaseTogether", "respread(staying)", "[]"],
    [
      "services-release-the-allow-list-with-the-first-backend",
      "releaseTogether",
      "applyRules(context, change)",
      'applyRules(context, { add: add.filter(({ _tag }) => _tag === "Redirect"), remove: entries.flatMap(({ resources }) => resources.rules) })'
    ]
  ]),
  ...faultsOf("src/mapper/steps/Reshare.ts")([
    [
      "services-do-not-record-slots-of-others",
      "recordShares",
      "recordEntries(store, shares.map(({ entry }) => entry))",
      "Effect.void"
    ],
    ["services-relay-the-slots-of-a-released-backend", "reshareAll", "route === undefined", "route !== null"]
  ]),
  ...faultsOf("src/mapper/restore/Restore.ts")([
    [
      "services-spread-anew-at-a-restore",
      "restoreEntries",
      "servicesOf(context.mappings, restored)",
      "servicesOf(context.mappings, restored.map((entry) => { const { share } = entry.mapping; if (share !== undefined) entry.mapping = { ...entry.mapping, share: { ...share, slots: [] } }; return entry }))"
    ],
    ["services-restore-one-backend-alone", "holdAgain", "isMember(other, share?.service)", "false"],
    [
      "store-restores-into-the-kernel-nothing",
      "replaceTable",
      "[...mappings.all()].flatMap(({ resources }) => resources.rules)",
      "[...mappings.all()].slice(1).flatMap(({ resources }) => resources.rules)"
    ],
    [
      "store-restores-what-is-recorded-as-if-it-were-not",
      "restore",
      "found.filter((one) => !over.has(mappingKey(one.mapping)))",
      "found.slice(1)"
    ],
    [
      "store-takes-applied-for-answered",
      "entryOf",
      'state === "answered"',
      'state === "answered" || state === "applied"'
    ]
  ]),
  ...faultsOf(
    "src/cluster/Claiming.ts",
    "cluster"
  )([
    [
      "cluster-claims-without-the-lease",
      "claimAll",
      '{ _tag: "Put", key: keys.claim(cell, name), value: claimText(host, value), lease }',
      '{ _tag: "Put", key: keys.claim(cell, name), value: claimText(host, value) }'
    ],
    [
      "cluster-claims-in-a-cell-that-has-moved",
      "claimAll",
      '{ _tag: "Revision", key, is: revision }',
      '{ _tag: "CreatedAfter", key, revision: -1 }'
    ],
    [
      "cluster-releases-by-key-alone",
      "releaseOne",
      '[{ _tag: "CreateRevision", key, is: revision }]',
      "[] as const"
    ]
  ]),
  ...faultsOf(
    "src/cluster/Sessions.ts",
    "cluster"
  )([["cluster-leaves-claims-on-the-earlier-lease", "moveKeys", "moving.length === 0", "true"]]),
  ...faultsOf(
    "src/cluster/LeaseSpan.ts",
    "cluster"
  )([
    [
      "cluster-believes-a-clock-that-was-set-back",
      "sureMillisBy",
      "Math.min(monotonic, epochMillis - clock.currentTimeMillisUnsafe())",
      "epochMillis - clock.currentTimeMillisUnsafe() + 0 * monotonic"
    ]
  ]),
  ...faultsOf(
    "src/cluster/Member.ts",
    "cluster"
  )([
    [
      "cluster-grants-after-its-lease",
      "mayGrantBy",
      "sureMillisBy(clock, span) > 0",
      "sureMillisBy(clock, span) >= 0"
    ]
  ]),
  ...faultsOf(
    "src/cluster/Membership.ts",
    "cluster"
  )([
    [
      "cluster-does-not-join-again",
      "renewing",
      'renewed.failure._tag === "LeaseLost"',
      'renewed.failure._tag !== "LeaseLost" && failed === "never"'
    ],
    [
      "cluster-serves-what-another-host-has",
      "claimAgain",
      "Queue.offer(lost, { protocol: port.protocol, port: port.port })",
      "Effect.void"
    ]
  ]),
  ...faultsOf(
    "src/cluster/Cells.ts",
    "cluster"
  )([
    [
      "cluster-claims-the-first-port-of-anothers-block",
      "excludes",
      "item.first <= port",
      "item.first < port"
    ],
    [
      "cluster-takes-a-block-with-anothers-port",
      "freeBlock",
      "item.port < from || item.port > to",
      "item.port <= from || item.port > to"
    ]
  ]),
  ...faultsOf(
    "src/cluster/Ledger.ts",
    "cluster"
  )([
    ["cluster-serves-anybody-on-the-claim-of-a-service", "covers", "own.claimant.service === service", "true"]
  ])
]
