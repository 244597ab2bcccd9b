/**
 * What must be true of a cluster's hosts, whatever strikes them. It knows what callers were answered, and compares it
 * with what etcd holds, what hosts record, and what they serve.
 *
 * - `unique`: no two hosts claim one port, and a port is granted on a claim alone.
 * - `kept`: what was answered is recorded until it is unmapped, and not any more then; its claim and its service go on as
 *   long as the lease.
 * - `granted`: once faults have ended, each host grants, and serves what it can; nothing is claimed for nothing.
 */
import type { ListedMapping } from "../../protocol/Driver.ts"
import type { Group, PortBinding } from "../../protocol/PortBinding.ts"
import { endpointText, frontendText } from "../../protocol/PortBinding.ts"
import { type Protocol, protocolNumber, protocolOfNumber } from "../../protocol/Protocol.ts"
import type { SimulatedHost } from "./SimulatedHost.ts"
import { claimText, coverOf, covers, excluderOf, overlapIn, type TruePort, type Truth } from "./Truth.ts"

export type SimulationRule = "unique" | "kept" | "granted" | "runs"

export class Broken extends Error {
  readonly rule: SimulationRule
  constructor(rule: SimulationRule, text: string) {
    super(text)
    this.rule = rule
  }
}

/** A mapping whose answer a caller has seen. */
export interface Published extends TruePort {
  readonly host: SimulatedHost
  readonly binding: PortBinding
  readonly givenMillis: number
  /** `doubtful`: its call, or an unmapping, has not ended well; it may be there or not. */
  state: "given" | "answered" | "doubtful"
  /** Whether the record has it as answered. */
  isRecorded: boolean
  /** Whether it was in conflict when its host was last asked. */
  isInConflict: boolean
  /** Of the claim that it was granted on; `undefined` once the host's lease has ended. */
  epoch: number | undefined
}

export interface Answer {
  readonly group: Group
  readonly bindings: ReadonlyArray<PortBinding>
  readonly nowMillis: number
}

/** What hosts need to serve again after a fault: retries are a second apart. */
const recoveryMillis = 5000

export class Oracle {
  readonly published = new Map<string, Published>()
  truth: Truth = { revision: 0, claims: [], hosts: new Map(), leases: new Map() }
  readonly #revoked: ReadonlySet<string>
  readonly #endings = new Map<string, number>()
  readonly #unmapped = new Set<string>()
  /** The revision at which each host came last. */
  readonly #came = new Map<string, number>()

  /** `revoked`: the leases that hosts ended. One that runs out excuses what its host loses. */
  constructor(revoked: ReadonlySet<string>) {
    this.#revoked = revoked
  }

  /** How often the host's lease has ended, as far as was checked. */
  endingsOf({ name }: SimulatedHost): number {
    return this.#endings.get(name) ?? 0
  }

  /** A caller sees an answer. `endings`: of the host's lease when the call began. */
  given(
    host: SimulatedHost,
    { group, bindings, nowMillis: givenMillis }: Answer,
    truth: Truth,
    endings: number
  ): void {
    this.#noteEndings(truth)
    for (const binding of bindings) {
      if (binding.discarded !== undefined) continue
      const at = portOf(group, binding)
      const cover = coverOf(truth, host.name, at)
      if (cover === undefined && this.endingsOf(host) === endings)
        throw new Broken(
          "unique",
          `${host.name} answers ${textOf(binding)} without a claim; etcd has ${claimsAt(truth, at)}`
        )
      const key = keyOf(host, binding)
      const there = this.published.get(key)
      if (there !== undefined && there.state === "answered") continue
      // A claim that came after its lease has ended may be one that the host knows nothing of.
      const epoch = this.endingsOf(host) === endings ? cover?.revision : undefined
      this.published.set(key, {
        ...{ host, binding, givenMillis, ...at },
        state: "given",
        ...{ isRecorded: false, isInConflict: false, epoch }
      })
    }
  }

  /** Its call has ended, well or not: by then it is recorded, unless something has struck the host since. */
  ended(host: SimulatedHost, bindings: ReadonlyArray<PortBinding>, isAnswered: boolean): void {
    const recorded = recordsOf(host)
    for (const binding of bindings) {
      const one = this.published.get(keyOf(host, binding))
      if (one?.state !== "given") continue
      one.state = isAnswered ? "answered" : "doubtful"
      one.isRecorded = isAnswered && recorded.get(keyOfBinding(binding)) === "answered"
      if (isAnswered && !one.isRecorded && host.disturbedMillis < one.givenMillis)
        throw new Broken("kept", `${host.name} did not record ${textOf(binding)}, which it answered`)
    }
  }

  unmapping(one: Published): void {
    one.state = "doubtful"
  }

  unmapped(one: Published): void {
    this.published.delete(keyOf(one.host, one.binding))
    this.#unmapped.add(keyOf(one.host, one.binding))
  }

  /** After each event. */
  check(hosts: ReadonlyArray<SimulatedHost>, truth: Truth, nowMillis: number): void {
    const before = this.truth
    this.#noteEndings(truth)
    this.truth = truth
    if (truth.revision !== before.revision) this.#checkClaims(before)
    const records = new Map(hosts.map((host) => [host, recordsOf(host)]))
    for (const [{ name }, recorded] of records)
      for (const key of recorded.keys())
        if (this.#unmapped.has(`${name} ${key}`))
          throw new Broken("kept", `${name} has a record again of what was unmapped: ${key}`)
    const listed = new Map(hosts.map((host) => [host, host.isUp ? byKey(host.listed) : undefined]))
    for (const one of this.published.values()) {
      if (one.state !== "answered") continue
      const key = keyOfBinding(one.binding)
      const isQuiet = nowMillis - one.host.disturbedMillis > recoveryMillis
      const served = listed.get(one.host)
      const mapping = served?.get(key)
      if (records.get(one.host)?.get(key) === "answered") one.isRecorded = true
      else if (one.isRecorded) {
        if (!one.isInConflict || isQuiet)
          throw new Broken("kept", `${one.host.name} has forgotten ${textOf(one.binding)}, which it answered`)
        // Another call got its port, which it could not have back.
        one.state = "doubtful"
        continue
      }
      if (mapping !== undefined) one.isInConflict = mapping.state === "conflicted"
      if (served === undefined || !isQuiet) continue
      if (one.epoch === undefined) {
        // Before it is proven a host may have a claim that it knows nothing of, and gives back to claim anew.
        if (mapping?.state === "live" && one.host.status?.mayGrant === true)
          one.epoch = coverOf(truth, one.host.name, one)?.revision
      } else if (one.isRecorded && mapping?.state !== "live")
        throw new Broken(
          "kept",
          `${one.host.name} does not serve ${textOf(one.binding)}, whose claim is its own: ${mapping?.reason ?? "it does not list it"}`
        )
    }
  }

  /** Once nothing has struck for long, and everything has had its time. */
  checkSettled(hosts: ReadonlyArray<SimulatedHost>): void {
    for (const host of hosts) {
      const { status } = host
      if (status?.mayGrant !== true)
        throw new Broken(
          "granted",
          `${host.name} grants nothing: ${status?.trouble ?? "it does not say why"}`
        )
      const listed = host.listed ?? []
      this.#checkServed(host, listed)
      this.#checkNeeded(host, listed)
      const own = this.truth.claims.filter((claim) => claim.host === host.name)
      const blocks = own.filter(({ protocol }) => protocol === undefined).length
      if (blocks !== status.blocks || own.length - blocks !== status.claims)
        throw new Broken(
          "granted",
          `${host.name} knows of ${status.claims} claims and ${status.blocks} blocks of its ${own.length - blocks} and ${blocks}`
        )
    }
  }

  #noteEndings({ hosts }: Truth): void {
    for (const [name, came] of this.#came) {
      if (hosts.get(name)?.since === came) continue
      this.#came.delete(name)
      this.#endings.set(name, (this.#endings.get(name) ?? 0) + 1)
    }
    for (const [name, { since }] of hosts) this.#came.set(name, since)
  }

  #checkClaims(before: Truth): void {
    const overlap = overlapIn(this.truth)
    if (overlap !== undefined)
      throw new Broken("unique", `two claims of one port: ${overlap.map(claimText).join(", and ")}`)
    for (const one of this.published.values()) {
      if (one.epoch === undefined) continue
      const { name } = one.host
      if (coverOf(this.truth, name, one)?.revision === one.epoch) continue
      const lease = coverOf(before, name, one)?.lease ?? ""
      const isHere = before.hosts.get(name)?.since === this.truth.hosts.get(name)?.since
      const isLeaseOver = !this.truth.leases.has(lease) && !this.#revoked.has(lease)
      if (isHere && !isLeaseOver && one.state === "answered" && one.isRecorded)
        throw new Broken(
          "kept",
          `${name} has given back the claim of ${textOf(one.binding)}, which it answered, while its lease lives`
        )
      one.epoch = undefined
    }
  }

  #checkServed(host: SimulatedHost, listed: ReadonlyArray<ListedMapping>): void {
    const served = byKey(listed) as ReadonlyMap<string, ListedMapping>
    for (const one of this.published.values()) {
      if (one.host !== host || one.state !== "answered" || !one.isRecorded) continue
      const mapping = served.get(keyOfBinding(one.binding))
      if (mapping?.state === "live") continue
      if (mapping === undefined || excluderOf(this.truth, host.name, one) === undefined)
        throw new Broken(
          "granted",
          `${host.name} does not serve ${textOf(one.binding)}, which no other host has: ${mapping?.reason ?? "it does not list it"}`
        )
    }
  }

  #checkNeeded(host: SimulatedHost, listed: ReadonlyArray<ListedMapping>): void {
    const ports = new Map(listed.map((mapping) => [mapping, portOfListed(mapping)]))
    const lease = this.truth.hosts.get(host.name)?.leases[0]
    for (const claim of this.truth.claims) {
      if (claim.host !== host.name) continue
      if (claim.lease !== lease)
        throw new Broken("granted", `a claim is not on the lease of its host: ${claimText(claim)}`)
      const isNeeded = [...ports.values()].some((port) => covers(claim, port))
      if (claim.protocol !== undefined && !isNeeded)
        throw new Broken("granted", `no mapping needs a claim: ${claimText(claim)}`)
    }
    for (const [{ state }, at] of ports)
      if (state === "live" && coverOf(this.truth, host.name, at) === undefined)
        throw new Broken(
          "granted",
          `${host.name} serves ${at.port}/${at.protocol} without a claim; etcd has ${claimsAt(this.truth, at)}`
        )
  }
}

const recordsOf = ({ records }: SimulatedHost) =>
  new Map(records.map(({ mapping, state }) => [keyOfRecord(mapping), state]))

const claimsAt = ({ claims }: Truth, { protocol, port }: TruePort): string => {
  const there = claims.filter(
    (claim) => claim.first <= port && port <= claim.last && (claim.protocol ?? protocol) === protocol
  )
  return there.length === 0 ? "none on it" : there.map(claimText).join(", ")
}

const serviceOf = (labels: Group["labels"]): string | undefined => {
  const share = labels.get("portmapper.share")
  return share === undefined ? undefined : `engine ${share}`
}

const portOf = ({ labels }: Group, { entry: { protocol }, port }: PortBinding): TruePort => ({
  ...{ protocol, port },
  service: serviceOf(labels)
})

const portOfListed = ({ protocol, frontendPort: port, labels }: ListedMapping): TruePort => ({
  protocol: protocolOfNumber(protocol) as Protocol,
  port,
  service: serviceOf(labels)
})

const textOf = ({ entry: { protocol, host, backend }, port }: PortBinding): string =>
  `${frontendText({ protocol, host, port })} to ${endpointText(backend)}`

const keyOf = (host: SimulatedHost, binding: PortBinding): string => `${host.name} ${keyOfBinding(binding)}`

const keyOfBinding = ({ entry, port }: PortBinding): string => keyOfRecord({ ...entry, port })

const keyOfRecord = ({
  protocol,
  host,
  port,
  backend
}: Pick<PortBinding["entry"], "protocol" | "host" | "backend"> & { readonly port: number }): string =>
  `${protocolNumber[protocol]} ${host.text} ${port} ${backend.address.text} ${backend.port}`

const byKey = (listed: ReadonlyArray<ListedMapping> | undefined) =>
  listed &&
  new Map(
    listed.map((each) => [
      `${each.protocol} ${each.frontendIp} ${each.frontendPort} ${each.backendIp} ${each.backendPort}`,
      each
    ])
  )
