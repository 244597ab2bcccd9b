/**
 * Services of the mapper that fail at random: either the call is not made, or it is made and reported as failed.
 * They fail while the file `faults` is in the folder; each failure adds a line to `injected` beside it.
 */
import { appendFileSync, existsSync } from "node:fs"
import { join } from "node:path"
import { Effect } from "effect"
import { ENOMEM, type Libc } from "../../adapters/linux/Libc.ts"
import { type Conntrack, ConntrackError } from "../../src/firewall/Conntrack.ts"
import { type Firewall, FirewallError } from "../../src/firewall/Firewall.ts"
import { type MappingStore, StoreError } from "../../src/mapper/MappingStore.ts"
import { type HostSockets, SocketError } from "../../src/ports/HostSockets.ts"
import type { Random } from "../../src/testing/Random.ts"

const injectedText = "a failure was put in"

/** Every injected error contains one of these texts; the second is the C library's for `ENOMEM`. */
export const injectedTexts: ReadonlyArray<string> = [injectedText, "annot allocate memory"]

export const switchOf = (folder: string): string => join(folder, "faults")
export const injectedOf = (folder: string): string => join(folder, "injected")

type Moment = "before" | "after"

export class Faults {
  readonly #folder: string
  readonly #random: Random
  readonly #rate: number

  constructor(folder: string, random: Random, rate: number) {
    this.#folder = folder
    this.#random = random
    this.#rate = rate
  }

  /** Whether this call must fail, and when. */
  at(call: string, moments: ReadonlyArray<Moment> = ["before", "after"]): Moment | undefined {
    if (!this.#random.chance(this.#rate) || !existsSync(switchOf(this.#folder))) return undefined
    const moment = moments[this.#random.below(moments.length)]
    appendFileSync(injectedOf(this.#folder), `${call} ${moment}\n`)
    return moment
  }
}

/** `undo` is the cleanup that a service with a late failure does itself before it reports the failure. */
const failing = <A, E, E2>(
  faults: Faults,
  call: string,
  effect: Effect.Effect<A, E>,
  error: () => E2,
  undo: (a: A) => Effect.Effect<void> = () => Effect.void
): Effect.Effect<A, E | E2> =>
  Effect.suspend((): Effect.Effect<A, E | E2> => {
    switch (faults.at(call)) {
      case "before":
        return Effect.fail(error())
      case "after":
        return Effect.flatMap(effect, (a) => Effect.andThen(undo(a), Effect.fail(error())))
      default:
        return effect
    }
  })

const socketError = () => new SocketError({ reason: "Failed", detail: injectedText })
const conntrackError = () => new ConntrackError({ doing: "flushing", detail: injectedText })
const firewallError = () =>
  new FirewallError({ reason: "Failed", operation: "changing the table", detail: injectedText })
const storeError = () =>
  new StoreError({ reason: "Failed", operation: "changing the record", detail: injectedText })

export const failingSockets =
  (faults: Faults) =>
  (sockets: HostSockets["Service"]): HostSockets["Service"] => ({
    ...sockets,
    open: (protocol, host, port) =>
      failing(faults, "socket open", sockets.open(protocol, host, port), socketError, sockets.close),
    admit: (socket, admission, backends) =>
      failing(faults, "socket admit", sockets.admit(socket, admission, backends), socketError)
  })

export const failingFirewall =
  (faults: Faults) =>
  (firewall: Firewall["Service"]): Firewall["Service"] => ({
    apply: (change) => failing(faults, "firewall apply", firewall.apply(change), firewallError),
    replace: (rules) => failing(faults, "firewall replace", firewall.replace(rules), firewallError),
    read: failing(faults, "firewall read", firewall.read, firewallError),
    refuse: (flows) => failing(faults, "firewall refuse", firewall.refuse(flows), firewallError),
    check: failing(faults, "firewall check", firewall.check, firewallError),
    remove: failing(faults, "firewall remove", firewall.remove, firewallError)
  })

export const failingConntrack =
  (faults: Faults) =>
  (conntrack: Conntrack["Service"]): Conntrack["Service"] => ({
    ...conntrack,
    flush: (frontends) => failing(faults, "conntrack flush", conntrack.flush(frontends), conntrackError)
  })

export const failingStore =
  (faults: Faults) =>
  (store: MappingStore["Service"]): MappingStore["Service"] => ({
    load: failing(faults, "store load", store.load, storeError),
    put: (records) => failing(faults, `store put ${records[0]?.state}`, store.put(records), storeError),
    remove: (mappings, instead) =>
      failing(faults, "store remove", store.remove(mappings, instead), storeError),
    check: store.check,
    putEngine: (engine) => failing(faults, "store putEngine", store.putEngine(engine), storeError)
  })

/** The system calls beneath sockets and netlink. A failed call has had no effect, except for a lost answer. */
export const failingLibc = (libc: Libc, faults: Faults): Libc => {
  const failing =
    <Parameters extends ReadonlyArray<unknown>>(
      call: string,
      run: (...parameters: Parameters) => number,
      moments: ReadonlyArray<Moment> = ["before"]
    ) =>
    (...parameters: Parameters): number => {
      const moment = faults.at(`system call ${call}`, moments)
      if (moment === "after") run(...parameters)
      return moment === undefined ? run(...parameters) : -ENOMEM
    }
  return {
    ...libc,
    socket: failing("socket", libc.socket),
    setsockopt: failing("setsockopt", libc.setsockopt),
    bind: failing("bind", libc.bind),
    listen: failing("listen", libc.listen),
    send: failing("send", libc.send),
    recvfrom: failing("recvfrom", libc.recvfrom, ["before", "after"])
  }
}
