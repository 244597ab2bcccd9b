/**
 * Calls whose answers are long on their way, with failures at any of their steps. Whatever happens, the host holds the
 * resources of the known mappings and nothing else, answered mappings stay, and nothing is left once all are unmapped.
 */
import { assert, it } from "@effect/vitest"
import { Effect, Exit, Scope } from "effect"
import { TestClock } from "effect/testing"
import fc from "fast-check"
import { MemoryFirewall, ruleText } from "../../src/firewall/Firewall.ts"
import { Backends } from "../../src/mapper/MapperContext.ts"
import { MemoryStore, recordedState } from "../../src/mapper/MappingStore.ts"
import {
  isPending,
  type MappingEntry,
  Mappings,
  mappingKey,
  noResources
} from "../../src/mapper/model/Mapping.ts"
import { PortMapper } from "../../src/mapper/PortMapper.ts"
import { InjectedFailure, Steps } from "../../src/memory/Steps.ts"
import { HostSockets, MemoryHost } from "../../src/ports/HostSockets.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import { Driver } from "../../src/protocol/Driver.ts"
import { endpointText, frontendText, type PortBinding } from "../../src/protocol/PortBinding.ts"
import { MemoryRelay } from "../../src/relay/Relay.ts"
import { quiet } from "../../src/testing/Turns.ts"
import { group, releaseOf } from "../support/groups.ts"
import { runs, searchEffect, seed } from "./seed.ts"

console.log(`the seed of answers on their way: PORTMAPPER_SEED=${seed}`)

/** The failing step, counted from 0, and whether each later one fails, too. */
type Failing = { readonly at: number; readonly onwards: boolean } | undefined

interface Asked {
  readonly hosts: ReadonlyArray<string>
  readonly port: string
  readonly backend: string
  readonly labels: Readonly<Record<string, string>>
}

type Act =
  | { readonly do: "map"; readonly groups: ReadonlyArray<Asked>; readonly failing: Failing }
  /** The `of`th pending answer, modulo their number. */
  | { readonly do: "answer"; readonly of: number; readonly lost: boolean; readonly failing: Failing }
  /** The `of`th group ever granted. */
  | { readonly do: "unmap"; readonly of: number; readonly failing: Failing }
  | { readonly do: "wait" }
  /** The container starts or stops. */
  | { readonly do: "turn"; readonly backend: string }

const backends = ["172.17.0.2", "172.17.0.3"]

const failing: fc.Arbitrary<Failing> = fc.oneof(
  { weight: 2, arbitrary: fc.constant(undefined) },
  { weight: 1, arbitrary: fc.record({ at: fc.nat({ max: 11 }), onwards: fc.boolean() }) }
)

const asked: fc.Arbitrary<Asked> = fc.record({
  hosts: fc.constantFrom(
    ["0.0.0.0"],
    ["192.0.2.1"],
    ["0.0.0.0", "192.0.2.1"],
    ["::"],
    ["127.0.0.1"],
    ["192.0.2.1", "192.0.2.2"]
  ),
  port: fc.constantFrom("8080", "8080", "8080", "8081", "8080-8081", "0"),
  backend: fc.constantFrom(...backends),
  labels: fc.constantFrom<Readonly<Record<string, string>>>(
    {},
    {},
    { "portmapper.mode": "routed" },
    { "portmapper.mode": "proxy" },
    { "portmapper.allow": "10.0.0.0/8" }
  )
})

const act: fc.Arbitrary<Act> = fc.oneof(
  {
    weight: 10,
    arbitrary: fc.record({
      do: fc.constant("map" as const),
      groups: fc.oneof(
        { weight: 6, arbitrary: asked.map((each) => [each]) },
        { weight: 1, arbitrary: fc.array(asked, { minLength: 2, maxLength: 2 }) }
      ),
      failing
    })
  },
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant("answer" as const),
      of: fc.nat({ max: 9 }),
      lost: fc.boolean(),
      failing
    })
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("unmap" as const), of: fc.nat({ max: 9 }), failing }) },
  { weight: 2, arbitrary: fc.constant<Act>({ do: "wait" }) },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant("turn" as const), backend: fc.constantFrom(...backends) })
  }
)

/** A granted group; `order` counts the grants. */
interface Granted {
  readonly order: number
  readonly labels: Readonly<Record<string, string>>
  bindings: ReadonlyArray<PortBinding>
}

interface OnItsWay {
  readonly delivery: Scope.Closeable
  readonly granted: ReadonlyArray<Granted>
}

const isRouted = ({ labels }: Granted): boolean => labels["portmapper.mode"] === "routed"

const frontendOf = ({ entry: { protocol, host }, port }: PortBinding): string =>
  frontendText({ protocol, host, port })

/**
 * What callers know: each frontend that was answered and not unmapped since. Its policy is that of the last granted
 * call for it, whether its answer arrived or not.
 */
class Answered {
  private readonly known = new Map<string, Granted & { readonly backend: string }>()
  private readonly policies = new Map<string, Granted["labels"]>()
  /** Containers that were ever gone, and frontends whose unmapping failed: any state of theirs is right. */
  private readonly doubtful = new Set<string>()

  grant({ bindings, labels }: Granted): void {
    for (const binding of bindings) this.policies.set(frontendOf(binding), labels)
  }

  answer(granted: Granted): void {
    for (const binding of granted.bindings) {
      const frontend = frontendOf(binding)
      const backend = endpointText(binding.entry.backend)
      if (binding.discarded !== undefined || this.doubtful.has(backend)) continue
      const before = this.known.get(frontend)
      if (before === undefined || before.order < granted.order)
        this.known.set(frontend, { ...granted, backend })
    }
  }

  takeBack(bindings: ReadonlyArray<PortBinding>): void {
    for (const binding of bindings)
      if (this.known.get(frontendOf(binding))?.backend === endpointText(binding.entry.backend))
        this.known.delete(frontendOf(binding))
  }

  doubt(what: string): void {
    this.doubtful.add(what)
    for (const [frontend, { backend }] of this.known)
      if (backend === what || frontend === what) this.known.delete(frontend)
  }

  /**
   * Each answered frontend that is missing or different; without pending answers, also those beyond the answered
   * ones.
   */
  wrong(entries: ReadonlyArray<MappingEntry>, nothingOnItsWay: boolean): string {
    const serving = new Map(
      entries
        .filter(({ mapping, status }) => mapping.mode !== "routed" && status._tag === "Answered")
        .map(({ mapping }) => [frontendText(mapping), mapping])
    )
    const text = (backend: string, labels: Iterable<readonly [string, string]>) =>
      `${backend} ${JSON.stringify([...labels])}`
    const lost = [...this.known].flatMap(([frontend, { backend }]) => {
      const found = serving.get(frontend)
      const is = found && text(endpointText(found.backend), found.labels)
      const must = text(backend, Object.entries(this.policies.get(frontend) ?? {}))
      return is === must ? [] : [`${frontend} leads to ${is}, not to ${must}`]
    })
    const beyond = [...serving].flatMap(([frontend, { backend }]) =>
      !nothingOnItsWay ||
      this.known.has(frontend) ||
      [frontend, endpointText(backend)].some((each) => this.doubtful.has(each))
        ? []
        : [`${frontend} leads to ${endpointText(backend)}, which no answer named`]
    )
    return [...lost, ...beyond].join("; ")
  }
}

/** Runs all acts, and fails on the first violation. */
const play = (acts: ReadonlyArray<Act>): Effect.Effect<void> => {
  const gone = new Set<string>()
  return Effect.gen(function* () {
    const driver = yield* Driver
    const host = yield* MemoryHost
    host.setEphemeral({ range: { first: 8080, last: 8081 }, reserved: [] })
    const answered = new Answered()
    const onTheirWay: Array<OnItsWay> = []
    const mapped: Array<ReadonlyArray<PortBinding>> = []

    /** Earlier grants of these frontends are no longer promised to any caller. */
    const takeBack = (bindings: ReadonlyArray<PortBinding>, order = Infinity) => {
      const textOf = (binding: PortBinding) =>
        `${frontendOf(binding)} -> ${endpointText(binding.entry.backend)}`
      const named = new Set(bindings.map(textOf))
      answered.takeBack(bindings)
      for (const each of onTheirWay.flatMap((one) => one.granted))
        if (each.order < order && !isRouted(each))
          each.bindings = each.bindings.filter((one) => !named.has(textOf(one)))
    }

    const answer = Effect.fnUntraced(function* ({ delivery, granted }: OnItsWay, lost: boolean) {
      yield* Scope.close(delivery, lost ? Exit.fail("the client is gone") : Exit.void)
      if (!lost) for (const each of granted) if (!isRouted(each)) answered.answer(each)
    })

    const perform = Effect.fnUntraced(function* (each: Act) {
      switch (each.do) {
        case "map": {
          const groups = each.groups.map(({ hosts, port, backend, labels }) =>
            group(
              port,
              hosts.map((one) => `tcp ${one} ${backend}:80`),
              { ...labels }
            )
          )
          const delivery = yield* Scope.make()
          const call = Effect.suspend(
            (): Effect.Effect<ReadonlyArray<ReadonlyArray<PortBinding>>, unknown, Scope.Scope> => {
              if (groups.length > 1 && driver.mapGroups !== undefined) return driver.mapGroups(groups)
              return Effect.forEach(groups, driver.mapPorts)
            }
          )
          const exit = yield* Effect.exit(Effect.provideService(call, Scope.Scope, delivery))
          if (Exit.isFailure(exit)) return yield* Scope.close(delivery, exit)
          const granted = exit.value.map(
            (bindings, index): Granted => ({
              order: mapped.push(bindings),
              labels: each.groups[index]?.labels ?? {},
              bindings
            })
          )
          onTheirWay.push({ delivery, granted })
          for (const each of granted)
            if (isRouted(each)) takeBack(each.bindings, each.order)
            else answered.grant(each)
          return
        }
        case "answer": {
          const [one] = onTheirWay.splice(each.of % Math.max(1, onTheirWay.length), 1)
          return one === undefined ? undefined : yield* answer(one, each.lost)
        }
        case "unmap": {
          const bindings = mapped[each.of % Math.max(1, mapped.length)] ?? []
          takeBack(bindings)
          const exit = yield* Effect.exit(driver.unmapPorts(releaseOf(bindings)))
          if (Exit.isFailure(exit)) for (const one of bindings) answered.doubt(frontendOf(one))
          return
        }
        case "wait":
          return yield* TestClock.adjust("35 seconds")
        case "turn": {
          const { key } = addressUnsafe(each.backend)
          if (!gone.delete(key)) gone.add(key)
          return answered.doubt(`${each.backend}:80`)
        }
      }
    })

    const mappings = yield* Mappings
    const looked = Effect.fnUntraced(function* (when: string, settled: boolean) {
      const lives = [...mappings.all()]
      assert.strictEqual(answered.wrong(lives, onTheirWay.length === 0), "", when)
      yield* misheld(lives, when)
      if (onTheirWay.length === 0)
        assert.deepStrictEqual(lives.filter(isPending), [], `nothing is on its way ${when}`)
      if (settled) yield* unsettled(lives, when)
    })

    for (const [at, each] of acts.entries()) {
      let step = 0
      yield* Effect.provideService(perform(each), Steps, (name) => {
        const fails = "failing" in each && each.failing !== undefined && isHit(each.failing, step++)
        return fails ? Effect.fail(new InjectedFailure({ step: name })) : Effect.void
      })
      yield* looked(`after act ${at}`, false)
      if (at % 2 === 0) continue
      yield* TestClock.adjust("3 seconds")
      yield* looked(`soon after act ${at}`, true)
    }
    for (const one of onTheirWay.splice(0)) yield* answer(one, false)
    yield* TestClock.adjust("3 seconds")
    yield* looked("in the end", true)
    yield* driver.unmapPorts({
      bindings: [...mappings.all()].map(({ mapping }) => mapping),
      labels: new Map()
    })
    const held = yield* HostSockets.use((sockets) => sockets.held)
    assert.deepStrictEqual([mappings.size(), held.length], [0, 0], "all is unmapped")
    yield* unsettled([], "once all is unmapped")
  }).pipe(
    Effect.provide(PortMapper.layerMemory({}, Backends.layerMemory(gone))),
    Effect.provide(TestClock.layer()),
    quiet,
    Effect.orDie
  )
}

const isHit = ({ at, onwards }: NonNullable<Failing>, step: number): boolean =>
  onwards ? step >= at : step === at

/** At every moment: each mapping has its resources, and no resource is without a mapping. */
const misheld = Effect.fnUntraced(function* (lives: ReadonlyArray<MappingEntry>, when: string) {
  const held = yield* HostSockets.use((sockets) => sockets.held)
  for (const entry of lives) {
    const { mapping, status, resources } = entry
    const text = `${frontendText(mapping)} ${when}`
    assert.notStrictEqual(status._tag, "Gone", text)
    if (status._tag === "Provisional")
      assert.isTrue(isPending(entry), `${text}: provisional without a pending call`)
    if (status._tag === "Conflicted") assert.deepStrictEqual(resources, noResources, `${text}: in conflict`)
    if (status._tag === "Conflicted" || mapping.mode === "routed") continue
    const { hold, route } = resources
    assert.include(held, hold?.socket, `${text}: its socket is not open`)
    if (route !== undefined) assert.strictEqual(route.socket, hold?.socket, `${text}: its route`)
  }
  const used = new Set(lives.flatMap(({ resources: { hold } }) => hold?.socket ?? []))
  assert.strictEqual(held.length, used.size, `sockets held for nothing ${when}`)
})

/** Once nothing fails for a while: the kernel, the relay and the record agree with the known mappings. */
const unsettled = Effect.fnUntraced(function* (lives: ReadonlyArray<MappingEntry>, when: string) {
  const firewall = yield* MemoryFirewall
  const relay = yield* MemoryRelay
  const store = yield* MemoryStore
  const rules = lives.flatMap(({ resources }) => resources.rules.map(ruleText)).sort()
  assert.deepStrictEqual(firewall.rules(), rules, `rules ${when}`)
  const routes = lives
    .flatMap(({ resources }) => resources.route ?? [])
    .map(
      ({ protocol, host, port, backend, admits }) =>
        `${frontendText({ protocol, host, port })} -> ${endpointText(backend)} admits ${admits}`
    )
    .sort()
  assert.deepStrictEqual(relay.routes(), routes, `routes ${when}`)
  const recorded = (mapping: MappingEntry["mapping"]) =>
    `${mappingKey(mapping)} -> ${endpointText(mapping.backend)} ${mapping.mode} ${JSON.stringify([...mapping.labels])}`
  assert.deepStrictEqual(
    store
      .records()
      .map(({ mapping, state }) => `${recorded(mapping)} ${state}`)
      .sort(),
    lives.map(({ mapping, status }) => `${recorded(mapping)} ${recordedState(status)}`).sort(),
    `the record ${when}`
  )
})

it.live(
  "keeps answered mappings, and leaves nothing behind, whatever fails while answers are pending",
  () =>
    Effect.gen(function* () {
      const { found } = yield* searchEffect((from) =>
        Effect.promise(async () => {
          const acts = fc.array(act, { minLength: 1, maxLength: 25, size: "max" })
          const details = await fc.check(
            fc.asyncProperty(acts, (each) => Effect.runPromise(play(each))),
            { seed: from, numRuns: runs }
          )
          return details.failed ? `${fc.defaultReportMessage(details)}\n${details.errorInstance}` : undefined
        })
      )
      if (found !== undefined) assert.fail(found)
    }),
  600_000
)
