/**
 * A cluster of hosts with the production mapper, struck by faults that a seed draws: kills at every step, partitions,
 * requests and replies that are lost, late or doubled, leases that end, stops, upgrades. The same seed brings the same
 * events on every machine.
 */
import { Context, Exit, Layer, Scope } from "effect"
import type { ClusterStore } from "../../cluster/ClusterStore.ts"
import { type Fault, MemoryEtcd } from "../../cluster/MemoryEtcd.ts"
import { Random } from "../Random.ts"
import { groupFor, groupText, releaseOf } from "./Callers.ts"
import { Faults, type HostFault, hostFaults, pairs, pairText } from "./Faults.ts"
import { Broken, Oracle, type SimulationRule } from "./Oracle.ts"
import { Process, Schedule } from "./Schedule.ts"
import { SimulatedHost } from "./SimulatedHost.ts"
import { truthOf } from "./Truth.ts"
import type { SimulatedWorld } from "./World.ts"

export interface SimulateOptions {
  readonly seed: number
  readonly hosts: number
  /** Of callers and of the outside world; steps between them are struck, too. Default 120. */
  readonly events?: number | undefined
  /** Plants a fault into what the hosts use. */
  readonly wrap?: ((store: ClusterStore["Service"]) => ClusterStore["Service"]) | undefined
}

export interface Simulated {
  readonly seed: number
  readonly events: ReadonlyArray<string>
  readonly faults: number
  /** How often each fault struck at each step, as `kill at MappingStore.put`. */
  readonly struck: ReadonlyMap<string, number>
  readonly simulatedMillis: number
  readonly broken: { readonly rule: SimulationRule; readonly text: string } | undefined
}

/** Every fault at every step that it can strike, as `kill at MappingStore.put`. */
export const faultPairs: ReadonlyArray<string> = pairs.map(pairText)

const times = { ttlMillis: 10_000, absenceMillis: 30_000 }

/** The last requests arrive, leases end, and hosts join and claim again, each of which may take some attempts. */
const settlingMillis = 60_000

/** As many consecutive seeds as there are pairs of a fault and a step cover each pair. */
export const simulate = (options: SimulateOptions): Simulated => {
  const simulation = new Simulation(options)
  let broken: Simulated["broken"]
  try {
    simulation.run(options.events ?? 120)
  } catch (error) {
    broken =
      error instanceof Broken
        ? { rule: error.rule, text: error.message }
        : { rule: "runs", text: error instanceof Error ? (error.stack ?? error.message) : String(error) }
  }
  return { seed: options.seed, ...simulation.seen(), broken }
}

class Simulation {
  readonly #random: Random
  readonly #schedule: Schedule
  readonly #faults: Faults
  readonly #world: SimulatedWorld
  readonly #hosts: ReadonlyArray<SimulatedHost>
  readonly #oracle: Oracle
  readonly #events: Array<string> = []
  #calls = 0
  /** What went wrong within a task. */
  #broken: unknown

  constructor({ seed, hosts, wrap = (store) => store }: SimulateOptions) {
    this.#random = new Random(seed)
    this.#schedule = new Schedule(this.#random)
    const [focus] = pairs.slice(seed % pairs.length)
    if (focus === undefined) throw new Error(`seed ${seed} is not a whole number from 0 on`)
    this.#faults = new Faults(this.#random, focus)
    const outside = new Process(this.#schedule)
    const built = outside.run(Layer.buildWithScope(MemoryEtcd.layer, Scope.makeUnsafe())).pollUnsafe()
    if (built === undefined || Exit.isFailure(built)) throw new Error("an etcd in memory begins at once")
    const etcd = Context.get(built.value, MemoryEtcd)
    const armed = new Map<string, Fault>()
    etcd.setFaults((host) => {
      const fault = armed.get(host)
      armed.delete(host)
      return fault
    })
    const revoked = new Set<string>()
    this.#world = {
      ...{ random: this.#random, schedule: this.#schedule, faults: this.#faults },
      ...{ etcd, outside, times, wrap, revoked, clocksGoBack: this.#random.chance(0.5) },
      arm: (host, fault) => armed.set(host, fault),
      log: (text) => this.#log(text)
    }
    this.#oracle = new Oracle(revoked)
    this.#log(`seed ${seed}: above all ${pairText(focus)}`)
    this.#hosts = Array.from(
      { length: hosts },
      (_, index) => new SimulatedHost(this.#world, String.fromCharCode(97 + index))
    )
  }

  seen() {
    return {
      events: this.#events,
      faults: this.#faults.count,
      struck: this.#faults.struck,
      simulatedMillis: this.#schedule.nowMillis
    }
  }

  run(events: number): void {
    for (const host of this.#hosts) host.start()
    this.#advance(this.#random.below(3000))
    this.#faults.isOn = true
    for (let event = 0; event < events; event++) {
      this.#event()
      this.#advance(this.#random.below(this.#random.pick([10, 300, 300, 2000, 2000, times.ttlMillis])))
    }
    this.#faults.isOn = false
    this.#log("faults end")
    for (const host of this.#hosts) host.heal()
    this.#advance(settlingMillis)
    this.#oracle.checkSettled(this.#hosts)
    this.#forsakeOne()
  }

  #log(text: string): void {
    this.#events.push(`${(this.#schedule.nowMillis / 1000).toFixed(3)} ${text}`)
  }

  #event(): void {
    const host = this.#random.pick(this.#hosts as readonly [SimulatedHost, ...ReadonlyArray<SimulatedHost>])
    const { lead } = this.#faults
    if (lead !== undefined && this.#random.chance(0.2)) {
      this.#strike(host, lead)
      return
    }
    if (this.#random.chance(0.06)) {
      this.#strike(host, this.#random.pick(hostFaults))
      return
    }
    const own = [...this.#oracle.published.values()].filter(
      (one) => one.host === host && one.state === "answered"
    )
    const [one] = this.#random.some(own, 1)
    if (one !== undefined && this.#random.chance(own.length > 4 ? 0.7 : 0.3)) this.#unmap(one)
    else this.#map(host)
  }

  /** A fault between two calls. */
  #strike(host: SimulatedHost, fault: HostFault): void {
    if (fault === "fail" || fault === "stall") return
    this.#log(`${host.name}: ${fault}`)
    this.#faults.count++
    host.strike(fault)
  }

  #map(host: SimulatedHost, port?: number): void {
    const group = groupFor(this.#random, ++this.#calls, port)
    const call = `${host.name}: call ${this.#calls}`
    if (!host.isUp) return
    this.#log(`${call} maps ${groupText(group)}`)
    const endings = this.#oracle.endingsOf(host)
    let bindings: Parameters<Oracle["ended"]>[1] = []
    host.map(group, {
      isLost: this.#random.chance(0.05),
      patienceMillis: this.#random.chance(0.05) ? this.#random.below(3000) : undefined,
      given: (answer) => {
        bindings = answer
        this.#log(`${call} is answered with port ${answer[0]?.port}`)
        this.#judging(() => {
          const truth = truthOf(this.#world.etcd, this.#oracle.truth)
          const { nowMillis } = this.#schedule
          this.#oracle.given(host, { group, bindings: answer, nowMillis }, truth, endings)
        })
      },
      ended: (end, reason) => {
        if (end !== "answered")
          this.#log(`${call} ${end === "killed" ? "has no answer" : `fails: ${reason}`}`)
        this.#judging(() => this.#oracle.ended(host, bindings, end === "answered"))
        if (reason.startsWith("broke:"))
          this.#judging(() => {
            throw new Broken("runs", `${call} ${reason}`)
          })
      }
    })
  }

  #unmap(one: Parameters<Oracle["unmapping"]>[0]): void {
    if (!one.host.isUp) return
    const call = `${one.host.name}: call ${++this.#calls}`
    this.#log(`${call} unmaps port ${one.port} of ${one.binding.entry.backend.address.text}`)
    this.#oracle.unmapping(one)
    one.host.unmap(releaseOf(one), (end, reason) => {
      if (end === "answered") {
        this.#oracle.unmapped(one)
        if (this.#random.chance(0.5)) this.#replace(one)
      } else this.#log(`${call} ${end === "killed" ? "has no answer" : `fails: ${reason}`}`)
    })
  }

  /** Another container begins in its place. */
  #replace({ host, port }: Parameters<Oracle["unmapping"]>[0]): void {
    this.#schedule.sleep(this.#world.outside, this.#random.below(3000), () => this.#map(host, port))
  }

  /** Lets time pass in parts, and checks after each. */
  #advance(millis: number): void {
    const parts = Math.ceil(millis / 1000) || 1
    this.#schedule.flush()
    this.#check()
    for (let part = 0; part < parts; part++) {
      this.#schedule.advance(millis / parts)
      this.#check()
    }
  }

  #check(): void {
    if (this.#broken !== undefined) throw this.#broken
    this.#oracle.check(this.#hosts, truthOf(this.#world.etcd, this.#oracle.truth), this.#schedule.nowMillis)
  }

  /** What throws within a task would be caught by whom it concerns. */
  #judging(judge: () => void): void {
    try {
      judge()
    } catch (error) {
      this.#broken ??= error
    }
  }

  /** A host that never comes back: once its lease has ended, others can have its ports. */
  #forsakeOne(): void {
    const [gone] = this.#random.some(this.#hosts, 1)
    if (gone === undefined || this.#hosts.length < 2) return
    this.#log(`${gone.name} never comes back`)
    gone.isForsaken = true
    gone.kill()
    this.#advance(2 * times.ttlMillis)
    const { claims } = this.#oracle.truth
    if (claims.some(({ host }) => host === gone.name))
      throw new Broken("granted", `${gone.name} has been away for long, and still has claims`)
  }
}
