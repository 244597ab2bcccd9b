/** The whole state of a watch; its methods do no input or output. */

import { idleLabel } from "../../src/mapper/model/Labels.ts"
import type { Interfaces } from "../../src/ports/InterfaceAddresses.ts"
import type { ListedMapping } from "../../src/protocol/Driver.ts"
import { interfaceLabel } from "../../src/protocol/InterfaceLabel.ts"
import {
  frontendText,
  meansBackend,
  type PortBinding,
  type Release,
  type ReleasedBinding
} from "../../src/protocol/PortBinding.ts"
import { interfaceOf } from "../../src/protocol/PublishSyntax.ts"
import { type Desired, type DesiredGroup, keysOf, type Problem, watchOwner } from "./Desired.ts"
import type { Granted, ReleaseAction } from "./Difference.ts"
import { type Container, shortId } from "./Engine.ts"
import {
  drainedFrom,
  drainedKey,
  type Observed,
  type ObservedGroup,
  observedFrom,
  signatureOf
} from "./Observed.ts"
import { concerns, problemsText, type StandingProblem, standingFrom } from "./Problems.ts"
import { Sleepers, type SleepingContainer } from "./Sleepers.ts"
import {
  addressesIn,
  keysAtInterface,
  leadsToAddresses,
  portKeyOf,
  publishOfKey,
  renamed,
  type Subscription,
  shortIdOfKey,
  subscriptionKey,
  withoutPorts
} from "./Subscription.ts"
import type { WatchEvent } from "./WatchEvents.ts"
import type { Recorded } from "./WatchRecord.ts"

/** No client waits longer. */
const longestWaitMillis = 600_000

/** A stop takes ten seconds by default, and may be given more. */
const stoppingMillis = 60_000

export class WatchState {
  readonly #observed = new Map<string, ObservedGroup>()
  /** As of the last listing, which follows each drain. */
  #drained: ReadonlySet<string> = new Set()
  readonly #granted: Map<string, number>
  #subscriptions: ReadonlyArray<Subscription>
  /** Ports of labels that a user unmapped: not mapped again until their containers are restarted. */
  readonly #dismissed = new Set<string>()
  /** The addresses of the interfaces that were named in the last reconciliation, as one text. */
  #interfaces: { readonly names: ReadonlySet<string>; readonly text: string } = { names: new Set(), text: "" }
  /** When a container ended, or was sent a signal that ends it, by its id. */
  readonly #stopping = new Map<string, number>()
  #problems: Map<string, StandingProblem> = new Map()
  /** The line last logged about the problems of a container, by its name. */
  readonly #logged = new Map<string, string>()
  /** When a client last waited at a frontend, until it is known who sleeps there. */
  readonly #waited = new Map<string, number>()
  #unsaved = false

  readonly sleepers: Sleepers

  constructor({ follows, granted, slept }: Recorded) {
    this.sleepers = new Sleepers(slept)
    this.#subscriptions = follows
    this.#granted = new Map(granted)
  }

  /** As of the last listing, plus the actions since. */
  get observed(): Observed {
    return this.#observed
  }

  get granted(): Granted {
    return this.#granted
  }

  get subscriptions(): ReadonlyArray<Subscription> {
    return this.#subscriptions
  }

  get problems(): ReadonlyArray<StandingProblem> {
    return [...this.#problems.values()]
  }

  /** The owners whose mappings may be for containers. */
  owners(): ReadonlySet<string> {
    const mentioned = [...this.#subscriptions, ...this.#observed.values()]
    return new Set([watchOwner, personsOwner, ...mentioned.map(({ owner }) => owner)])
  }

  /** What was observed of ports that lead to addresses, and to no container. */
  get observedAtAddresses(): Observed {
    return new Map([...this.#observed].filter(([key]) => leadsToAddresses(key)))
  }

  get problemsOfContainers(): ReadonlyArray<Problem> {
    const all = [...this.#problems.values()].map(({ problem }) => problem)
    return all.filter(({ desired }) => desired === undefined || !leadsToAddresses(desired.key))
  }

  /** Whether nothing that leads to addresses is followed, or still mapped. */
  isIdle(): boolean {
    return (
      this.observedAtAddresses.size === 0 &&
      !this.#subscriptions.some(({ id }) => addressesIn(id) !== undefined)
    )
  }

  /** Everything that the driver has mapped for these owners now. */
  observe(listed: ReadonlyArray<ListedMapping>): void {
    const observed = observedFrom(listed, this.#observed)
    this.#observed.clear()
    for (const [key, group] of observed) this.#observed.set(key, group)
    this.#drained = drainedFrom(listed)
  }

  /** An event of the Engine, or of what was done for a container that sleeps. */
  take(event: WatchEvent, nowMillis: number): void {
    const { sleepers } = this
    switch (event._tag) {
      case "Changed":
        this.signalled(event.id, event.action, nowMillis)
        sleepers.heard(event.id, event.action, nowMillis)
        break
      case "Connected":
        this.reconnected()
        break
      case "Waits":
        this.#waited.set(frontendText(event.frontend), nowMillis)
        break
      case "Started":
        sleepers.started(event.id, event.why, nowMillis)
        break
      case "Opened":
        sleepers.opened(event.id, event.key, nowMillis)
        break
      case "Looked":
        sleepers.looked(event.id, event.connections, nowMillis)
        break
      case "Stopped":
        if (event.why === undefined) sleepers.stopped(event.id, nowMillis)
        else sleepers.stays(event.id, event.why, nowMillis)
    }
  }

  /**
   * A container was sent a signal that ends it, or ended, or has started since. The Engine lists one that ended as
   * running while it takes it down, for some tenths of a second.
   */
  signalled(id: string, action: string, nowMillis: number): void {
    if (action === "stop" || action === "die") this.#stopping.set(id, nowMillis)
    else if (action === "start") this.#stopping.delete(id)
  }

  /** Starts may have been missed. */
  reconnected(): void {
    this.#stopping.clear()
  }

  /** The containers with those marked that are about to stop. A container that ignored the signal is not any more. */
  withStopping(containers: ReadonlyArray<Container>, nowMillis: number): ReadonlyArray<Container> {
    for (const { id, running } of containers) if (!running) this.#stopping.delete(id)
    for (const [id, since] of this.#stopping)
      if (nowMillis - since > stoppingMillis) this.#stopping.delete(id)
    if (this.#stopping.size === 0) return containers
    return containers.map((container) =>
      this.#stopping.has(container.id) ? { ...container, unready: "stopping" } : container
    )
  }

  /** Updates renamed subscriptions, and drops the ports of containers that neither exist nor have a subscription. */
  see(containers: ReadonlyArray<Container>): void {
    const named = this.#subscriptions.map((each) => renamed(each, containers))
    if (named.some((each, index) => each !== this.#subscriptions[index])) this.#setSubscriptions(named)
    const known = new Set([...containers, ...this.#subscriptions].map(({ id }) => shortId(id)))
    for (const key of this.#granted.keys())
      if (!known.has(shortIdOfKey(key)) && this.#granted.delete(key)) this.#unsaved = true
  }

  /**
   * Without the dismissed ports. A dismissed port that is not among these becomes desired again when it comes back;
   * what is desired for containers is among them only if they are known.
   */
  undismissed(desired: Desired, areContainersKnown: boolean): Desired {
    const keys = new Set(keysOf(desired).map(portKeyOf))
    for (const key of this.#dismissed)
      if (!keys.has(key) && (areContainersKnown || leadsToAddresses(key))) this.#dismissed.delete(key)
    return {
      groups: desired.groups.filter((group) => !this.isDismissed(group)),
      problems: desired.problems.filter(({ desired }) => desired === undefined || !this.isDismissed(desired))
    }
  }

  isDismissed({ key }: DesiredGroup): boolean {
    return this.#dismissed.has(portKeyOf(key))
  }

  /** These addresses were used for what is desired. */
  usedInterfaces(interfaces: Interfaces, desired: Desired): void {
    const publishes = new Set(keysOf(desired).map(publishOfKey))
    const names = new Set([...publishes].flatMap((text) => interfaceOf(text) ?? []))
    this.#interfaces = { names, text: addressesOf(names, interfaces) }
  }

  /** Whether the last reconciliation used other addresses than these. */
  hasOutdated(interfaces: Interfaces): boolean {
    const { names, text } = this.#interfaces
    return addressesOf(names, interfaces) !== text
  }

  mapped({ key, name, owner, group }: DesiredGroup, answer: ReadonlyArray<PortBinding>): void {
    const [first] = answer
    if (first === undefined) return
    const { port } = first
    const bindings = answer.flatMap(releasedOf)
    const idle = group.labels.has(idleLabel)
    this.#hold(key, { name, owner, port, bindings, idle, signature: signatureOf(group) })
    if (group.ports._tag === "Exact" || this.#granted.get(key) === port) return
    this.#granted.set(key, port)
    this.#unsaved = true
  }

  released({ key, bindings }: ReleaseAction): void {
    const group = this.#observed.get(key)
    if (group === undefined) return
    const left = group.bindings.filter((binding) => !bindings.includes(binding))
    this.#hold(key, { ...group, bindings: left, signature: undefined })
  }

  /** The driver undid the mapping of these groups. */
  undone(groups: ReadonlyArray<DesiredGroup>): void {
    for (const { key } of groups) this.#observed.delete(key)
  }

  /** What a caller releases; the ports of an interface at all of its addresses. */
  releaseOf(release: Release): Release {
    if (!release.labels.has(interfaceLabel)) return release
    const ports = this.#portsOf(release)
    const bindings = [...this.#observed].flatMap(([key, { bindings }]) =>
      ports.has(portKeyOf(key)) ? bindings : []
    )
    return { ...release, bindings }
  }

  /**
   * A caller released this: its ports must not be mapped again, at no address of their interface. Returns whether
   * there were any.
   */
  dismiss(release: Release): boolean {
    const ports = this.#portsOf(release)
    if (ports.size === 0) return false
    this.#setSubscriptions(this.#subscriptions.flatMap((each) => withoutPorts(each, ports) ?? []))
    for (const port of ports) if (port.startsWith(`${watchOwner} `)) this.#dismissed.add(port)
    const { bindings } = this.releaseOf(release)
    for (const [key, group] of this.#observed)
      if (group.bindings.some((each) => bindings.some((released) => isReleasedBy(each, released))))
        this.#observed.delete(key)
    for (const [key, { problem }] of this.#problems)
      if (problem.desired !== undefined && ports.has(portKeyOf(problem.desired.key)))
        this.#problems.delete(key)
    return true
  }

  /** The keys of the ports that are mapped as released, or would be. */
  #portsOf({ bindings: released, labels }: Release): ReadonlySet<string> {
    const interfaceName = labels.get(interfaceLabel)
    const isThere = (key: string) =>
      interfaceName === undefined || interfaceOf(publishOfKey(key)) === interfaceName
    const keys = [...this.#observed]
      .filter(([, { bindings }]) =>
        bindings.some((one) =>
          released.some((by) =>
            isReleasedBy(one, interfaceName === undefined ? by : { ...by, host: one.host })
          )
        )
      )
      .map(([key]) => key)
    for (const { problem } of this.#problems.values()) {
      const { desired } = problem
      const [entry] = desired?.group.entries ?? []
      if (desired === undefined || entry === undefined) continue
      const isMeant = (by: ReleasedBinding) =>
        concerns(problem, interfaceName === undefined ? by : { ...by, host: entry.host }, this.#granted)
      if (released.some(isMeant)) keys.push(desired.key)
    }
    const subscribed = this.#subscriptions.flatMap((each) => keysAtInterface(each, released, interfaceName))
    return new Set([...keys.filter(isThere).map(portKeyOf), ...subscribed])
  }

  /**
   * Replaces subscriptions with the same keys. Returns a function that restores the old ones, and leaves alone what
   * others subscribed to since.
   */
  subscribe(added: ReadonlyArray<Subscription>): () => void {
    const keys = new Set(added.map(subscriptionKey))
    const same = this.#subscriptions.filter((each) => keys.has(subscriptionKey(each)))
    const replaceBy = (these: ReadonlyArray<Subscription>) => {
      const others = this.#subscriptions.filter((each) => !keys.has(subscriptionKey(each)))
      this.#setSubscriptions([...others, ...these])
    }
    replaceBy(added)
    return () => replaceBy(same)
  }

  /** Replaces all problems. Returns a line for each container whose problems are new or have changed. */
  report(now: ReadonlyArray<Problem>, nowMillis: number): ReadonlyArray<ReportedProblem> {
    this.#problems = standingFrom(now, this.#problems, nowMillis)
    const byName = Map.groupBy(now, ({ name }) => name)
    for (const name of this.#logged.keys()) if (!byName.has(name)) this.#logged.delete(name)
    return [...byName].flatMap(([name, problems]) => {
      const text = problemsText(problems)
      if (this.#logged.get(name) === text) return []
      this.#logged.set(name, text)
      return [{ text, waiting: problems.every(({ waiting }) => waiting) }]
    })
  }

  /** The record to save, if it changed since the last call, or is lost. */
  takeUnsaved(isLost = false): Recorded | undefined {
    const unsaved = this.sleepers.takeUnsaved() || this.#unsaved || isLost
    this.#unsaved = false
    return unsaved ? this.recorded() : undefined
  }

  recorded(): Recorded {
    return { follows: this.#subscriptions, granted: this.#granted, slept: this.sleepers.slept }
  }

  bindingsOf({ ports }: SleepingContainer): ReadonlyArray<ReleasedBinding> {
    return [...ports.keys()].flatMap((key) => this.#observed.get(key)?.bindings ?? [])
  }

  /** Where clients waited; which containers sleep there may be known only later. `fellows` are those of now. */
  takeWaited(fellows: Fellows, nowMillis: number): void {
    for (const [frontend, atMillis] of this.#waited) {
      const there = fellows.get(frontend)
      for (const { id } of there ?? []) this.sleepers.wanted(id, atMillis)
      if (there !== undefined || nowMillis - atMillis > longestWaitMillis) this.#waited.delete(frontend)
    }
  }

  /** Drained ones apart; those that share a frontend, the oldest first. */
  fellows(): Fellows {
    const found = new Map<string, Array<SleepingContainer>>()
    for (const sleeper of this.sleepers.all)
      for (const frontend of this.#frontendsOf(sleeper))
        found.set(frontend, [...(found.get(frontend) ?? []), sleeper])
    return found
  }

  #frontendsOf({ ports }: SleepingContainer): ReadonlySet<string> {
    const bindings = [...ports.keys()].flatMap((key) =>
      (this.#observed.get(key)?.bindings ?? []).filter((each) => !this.#drained.has(drainedKey(key, each)))
    )
    return new Set(bindings.map(frontendText))
  }

  /** What was taken last could not be saved. */
  notSaved(): void {
    this.#unsaved = true
  }

  #hold(key: string, group: ObservedGroup): void {
    if (group.bindings.length === 0) this.#observed.delete(key)
    else this.#observed.set(key, group)
  }

  #setSubscriptions(subscriptions: ReadonlyArray<Subscription>): void {
    this.#subscriptions = subscriptions
    this.#unsaved = true
  }
}

/** The containers that sleep behind each frontend that has any and leads to them. */
export type Fellows = ReadonlyMap<string, ReadonlyArray<SleepingContainer>>

export interface ReportedProblem {
  readonly text: string
  readonly waiting: boolean
}

/** The owner of requests made on the command line. */
export const personsOwner = "cli"

/** As the driver understands it: without a host port a binding is named by its backend alone. */
const isReleasedBy = (one: ReleasedBinding, by: ReleasedBinding): boolean =>
  one.port === by.port &&
  one.protocol === by.protocol &&
  (one.port === 0 ? by.backend.address !== undefined : one.host.key === by.host.key) &&
  meansBackend(by.backend, one.backend)

const addressesOf = (names: ReadonlySet<string>, interfaces: Interfaces): string =>
  JSON.stringify([...names].map((name) => interfaces.get(name)?.map(({ key }) => key)))

const releasedOf = ({ entry, port, discarded }: PortBinding): ReadonlyArray<ReleasedBinding> =>
  discarded === undefined
    ? [{ protocol: entry.protocol, host: entry.host, port, backend: entry.backend }]
    : []
