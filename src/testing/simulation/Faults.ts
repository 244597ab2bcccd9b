/** What may strike a simulated host, and at which of its steps. */
import type { Transaction } from "../../cluster/Etcd.ts"
import type { Random } from "../Random.ts"

/** What strikes a host at any step of its. */
export const hostFaults = [
  /** The process is killed. */
  "kill",
  /** The step fails. */
  "fail",
  /** The step takes long. */
  "stall",
  /** The process stands still, for less than its lease lives or for longer. */
  "freeze",
  "suspend",
  /** Nothing passes between host and etcd, for less than its lease lives or for longer. */
  "cut",
  "isolate",
  /** A clean stop, or a takeover by another process, begins. */
  "stop",
  "upgrade",
  /** Somebody sets the clock of the host. */
  "clock",
  /** etcd forgets its history. */
  "compact"
] as const

/** What strikes a request to etcd. */
const requestFaults = ["lose request", "lose reply", "delay request", "delay reply", "double"] as const

export type HostFault = (typeof hostFaults)[number]
export type RequestFault = (typeof requestFaults)[number]
export type FaultName = HostFault | RequestFault

export const isRequestFault = (fault: FaultName): fault is RequestFault =>
  (requestFaults as ReadonlyArray<string>).includes(fault)

const localSteps = [
  "HostSockets.open",
  "HostSockets.admit",
  "HostSockets.adopt",
  "Firewall.apply",
  "Firewall.replace",
  "Conntrack.flush",
  "Relay.open",
  "MappingStore.put",
  "MappingStore.remove",
  "MappingStore.putEngine",
  "Call.answer",
  "Call.answered"
] as const

const etcdSteps = [
  "Etcd.transact claim",
  "Etcd.transact release",
  "Etcd.transact settle",
  "Etcd.transact update",
  "Etcd.transact host",
  "Etcd.transact move",
  "Etcd.transact read",
  "Etcd.page",
  "Etcd.watch",
  "Etcd.grant",
  "Etcd.keepAlive",
  "Etcd.revoke",
  "Etcd.leaseState"
] as const

/** What brings a host to a step that it seldom takes. */
const leads: { readonly [step: string]: HostFault } = {
  "HostSockets.adopt": "upgrade",
  "HostSockets.admit": "upgrade",
  "Etcd.transact move": "stop",
  "Etcd.revoke": "stop"
}

export interface Pair {
  readonly fault: FaultName
  readonly step: string
}

/** What has its answer can't fail, and a watch is not asked for again by itself. */
const isPossible = (fault: FaultName, step: string): boolean =>
  fault === "fail" ? !step.startsWith("Call.") : fault !== "double" || step !== "Etcd.watch"

/** Every fault at every step that it can strike. */
export const pairs: ReadonlyArray<Pair> = [
  ...[...localSteps, ...etcdSteps].flatMap((step) => hostFaults.map((fault) => ({ fault, step }))),
  ...etcdSteps.flatMap((step) => requestFaults.map((fault) => ({ fault, step })))
].filter(({ fault, step }) => isPossible(fault, step))

export const pairText = ({ fault, step }: Pair): string => `${fault} at ${step}`

/** What a transaction of a cluster's store is for. */
export const purposeOf = ({ compare, success: [first] }: Transaction): string => {
  switch (first?._tag) {
    case "Read":
      return compare.length === 0 ? "read" : "settle"
    case "Transaction":
      return first.transaction.success[0]?._tag === "Delete" ? "release" : "move"
    case "Put":
      if (compare[0]?._tag === "CreateRevision") return "update"
      return first.key.includes("/hosts/") ? "host" : "claim"
    default:
      return "nothing"
  }
}

/**
 * Strikes at random: rarely with what ends a process, often with what loses or delays a request; and one pair, the
 * `focus`, the first few times that a host comes by.
 */
export class Faults {
  readonly struck = new Map<string, number>()
  count = 0
  readonly #random: Random
  readonly #focus: Pair
  /** How often, between 0 and 1. */
  readonly #rate: number
  #left: number
  /** Whether anything strikes. */
  isOn = false

  constructor(random: Random, focus: Pair) {
    this.#random = random
    this.#focus = focus
    this.#rate = random.pick([0.02, 0.1, 0.2, 0.3])
    this.#left = 1 + random.below(3)
  }

  /** What leads to the step in focus, as long as it is to be struck there. */
  get lead(): HostFault | undefined {
    return this.#left > 0 ? leads[this.#focus.step] : undefined
  }

  at(step: string): FaultName | undefined {
    const fault = this.isOn ? this.#draw(step) : undefined
    if (fault === undefined) return undefined
    this.note({ fault, step })
    return fault
  }

  note(pair: Pair): void {
    const text = pairText(pair)
    this.struck.set(text, (this.struck.get(text) ?? 0) + 1)
    this.count++
  }

  #draw(step: string): FaultName | undefined {
    const random = this.#random
    if (step === this.#focus.step && this.#left > 0 && (this.lead !== undefined || random.chance(0.5))) {
      this.#left--
      return this.#focus.fault
    }
    if (!random.chance(this.#rate)) return undefined
    const fault = random.chance(0.1)
      ? random.pick(hostFaults)
      : step.startsWith("Etcd.")
        ? random.pick(requestFaults)
        : random.pick(["fail", "stall"])
    return isPossible(fault, step) ? fault : undefined
  }
}
