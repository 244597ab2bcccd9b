/**
 * Wraps a driver and records the bindings that one session got, so that they can be released at its end.
 *
 * The session did not create every binding that it got: one that existed before is returned again, and must stay. The
 * driver's list shows which ones this session created, even if the driver is remote: those with the owner of the
 * session's call that began during the call. Of a driver without a list, all count as created. (If another caller with
 * the same owner creates the same binding in the same milliseconds, the two look the same.)
 */
import { Clock, Effect, Fiber } from "effect"
import { parseAddress } from "../../src/protocol/Address.ts"
import { CurrentOwner, type Driver, type DriverError, type ListedMapping } from "../../src/protocol/Driver.ts"
import { callTimeout } from "../../src/protocol/Operations.ts"
import type { Group, PortBinding, Release, ReleasedBinding } from "../../src/protocol/PortBinding.ts"
import { protocolNumber } from "../../src/protocol/Protocol.ts"

export interface Session {
  readonly driver: Driver["Service"]
  /** Releases what this session created and has not unmapped. Limited in time; a failure is logged. */
  readonly release: Effect.Effect<void>
}

/**
 * A binding that the session got, and when: from the start of the first call that returned it to the end of the last.
 */
interface Granted {
  readonly binding: PortBinding
  readonly labels: Group["labels"]
  readonly owner: string
  readonly sinceMillis: number
  untilMillis: number
}

export const makeSession = (driver: Driver["Service"]): Session => {
  const granted = new Map<string, ReadonlyArray<Granted>>()

  const remember = (
    bindings: ReadonlyArray<PortBinding>,
    details: Pick<Granted, "labels" | "owner" | "sinceMillis" | "untilMillis">
  ): void => {
    for (const binding of bindings) {
      if (binding.discarded !== undefined) continue
      const key = frontendKey(binding.entry.protocol, binding.entry.host.key, binding.port)
      const there = granted.get(key) ?? []
      const before = there.find(
        (other) => other.owner === details.owner && backendText(other.binding) === backendText(binding)
      )
      if (before !== undefined) before.untilMillis = details.untilMillis
      else granted.set(key, [...there, { binding, ...details }])
    }
  }

  /** Runs a call that maps groups, and records the bindings of each group. */
  const remembered = <A, E, R>(
    groups: ReadonlyArray<Group>,
    asked: Effect.Effect<A, E, R>,
    bindingsOf: (answer: A, index: number) => ReadonlyArray<PortBinding>
  ): Effect.Effect<A, E, R> =>
    Effect.withFiber((caller) => {
      const owner = caller.getRef(CurrentOwner)
      const clock = caller.getRef(Clock.Clock)
      const sinceMillis = clock.currentTimeMillisUnsafe()
      return Effect.map(asked, (answer) => {
        const untilMillis = clock.currentTimeMillisUnsafe()
        for (const [index, { labels }] of groups.entries())
          remember(bindingsOf(answer, index), { labels, owner, sinceMillis, untilMillis })
        return answer
      })
    })

  const mapPorts = (group: Group) => remembered([group], driver.mapPorts(group), (bindings) => bindings)

  const { mapGroups: mapTogether, ...others } = driver
  const mapGroups = (together: NonNullable<typeof mapTogether>) => (groups: ReadonlyArray<Group>) =>
    remembered(groups, together(groups), (answers, index) => answers[index] ?? [])

  const unmapPorts = (release: Release) =>
    Effect.map(driver.unmapPorts(release), () => release.bindings.forEach(forget))

  const forget = ({ protocol, host, port, backend }: ReleasedBinding): void => {
    const key = frontendKey(protocol, host.key, port)
    const kept = granted
      .get(key)
      ?.filter(
        ({ binding: { entry } }) =>
          backend.address !== undefined &&
          (entry.backend.address.key !== backend.address.key || entry.backend.port !== backend.port)
      )
    if (kept === undefined || kept.length === 0) granted.delete(key)
    else granted.set(key, kept)
  }

  return {
    driver: {
      ...others,
      mapPorts,
      unmapPorts,
      ...(mapTogether === undefined ? {} : { mapGroups: mapGroups(mapTogether) })
    },
    release: toItsEnd(
      Effect.gen(function* () {
        const made = yield* madeOf([...granted.values()].flat(), driver)
        for (const release of releasesOf(made)) yield* driver.unmapPorts(release)
      })
    )
  }
}

/** In its own fiber: the session's may be interrupted, and the release must finish regardless. */
const toItsEnd = (release: Effect.Effect<void, DriverError>): Effect.Effect<void> =>
  release.pipe(
    Effect.timeoutOrElse({
      duration: callTimeout,
      orElse: () => Effect.fail({ message: "the driver did not answer in time" })
    }),
    Effect.catch((error) => Effect.logError(`releasing what the session mapped failed: ${error.message}`)),
    Effect.catchDefect((defect) => Effect.logError("releasing what the session mapped failed", defect)),
    Effect.interruptible,
    Effect.forkDetach({ startImmediately: true }),
    Effect.flatMap(Fiber.await),
    Effect.asVoid,
    Effect.uninterruptible
  )

/** The bindings that this session created. */
const madeOf = Effect.fnUntraced(function* (all: ReadonlyArray<Granted>, driver: Driver["Service"]) {
  if (all.length === 0 || driver.listPorts === undefined) return all
  const listed = yield* driver.listPorts.pipe(
    Effect.catchIf(
      (error: DriverError) => error._tag === "MethodNotFound",
      () => Effect.undefined
    )
  )
  if (listed === undefined) return all
  const byKey = new Map(listed.map((mapping) => [listedKey(mapping), mapping]))
  return all.filter(({ binding, owner, sinceMillis, untilMillis }) => {
    const { protocol, host } = binding.entry
    const found =
      byKey.get(`${frontendKey(protocol, host.key, binding.port)} ${backendText(binding)}`) ??
      byKey.get(`routed ${protocolNumber[protocol]} ${backendText(binding)}`)
    return found?.owner === owner && found.sinceMillis >= sinceMillis && found.sinceMillis <= untilMillis
  })
})

const frontendKey = (protocol: PortBinding["entry"]["protocol"], host: string, port: number): string =>
  `${protocolNumber[protocol]} ${host} ${port}`

const backendText = ({ entry: { backend } }: PortBinding): string => `${backend.address.key} ${backend.port}`

/** A mapping without a host port (mode `routed`) is identified by its backend. */
const listedKey = (mapping: ListedMapping): string => {
  const { protocol, frontendIp, frontendPort, backendIp, backendPort, mode } = mapping
  const frontend =
    mode === "routed" ? `routed ${protocol}` : `${protocol} ${addressKey(frontendIp)} ${frontendPort}`
  return `${frontend} ${addressKey(backendIp)} ${backendPort}`
}

const addressKey = (text: string): string => {
  const address = parseAddress(text)
  return address._tag === "Success" ? address.success.key : text
}

/** One release for each set of labels, since a release carries the labels of its request. */
const releasesOf = (grants: ReadonlyArray<Granted>): ReadonlyArray<Release> =>
  [...Map.groupBy(grants, ({ labels }) => JSON.stringify([...labels])).values()].map((some) => ({
    bindings: some.map(({ binding: { entry, port } }) => ({ ...entry, port })),
    labels: some[0]?.labels ?? new Map()
  }))
