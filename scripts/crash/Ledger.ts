/**
 * What the clients of a plugin know for sure, from their requests and the answers: which mappings were answered,
 * which calls never were, and so which mappings are legitimate.
 */
import type { WireBinding } from "../../test/lab/Plugin.ts"

/** In the format of `ListPorts`. */
export interface Listed {
  readonly Proto: number
  readonly FrontendIP: string
  readonly FrontendPort: number
  readonly BackendIP: string
  readonly BackendPort: number
  readonly State: string
}

export type Binding = Pick<WireBinding, "Proto" | "FrontendIP" | "FrontendPort" | "BackendIP" | "BackendPort">

export const keyOf = ({ Proto, FrontendIP, FrontendPort }: Binding): string =>
  `${Proto === 6 ? "tcp" : "udp"} ${FrontendIP.includes(":") ? `[${FrontendIP}]` : FrontendIP}:${FrontendPort}`

/** The one port that all clients share, each with backends of its own. */
export const sharedPort = 23_000

export const labelsOf = ({
  FrontendPort
}: Pick<Binding, "FrontendPort">): Readonly<Record<string, string>> =>
  FrontendPort === sharedPort ? { "portmapper.share": "all" } : {}

/** The key of a mapping: its frontend, on the shared port with its backend. */
export const bindingKey = (binding: Binding): string =>
  binding.FrontendPort === sharedPort ? textOf(binding) : keyOf(binding)

/** Whether one of these mappings has the same frontend: then it may serve the same client. */
export const isBeside = (one: Binding, others: ReadonlyArray<Binding>): boolean =>
  others.some((other) => keyOf(other) === keyOf(one))

/** In the format of errors: `[::]:8080/tcp`. */
export const frontendOf = (binding: Binding): string => {
  const [protocol, frontend] = keyOf(binding).split(" ")
  return `${frontend}/${protocol}`
}

export const textOf = (binding: Binding): string =>
  `${keyOf(binding)} -> ${binding.BackendIP} ${binding.BackendPort}`

const sameBackend = (a: Binding, b: Binding) => a.BackendIP === b.BackendIP && a.BackendPort === b.BackendPort

export class Ledger {
  /** Answered, and no client has requested to unmap it. */
  readonly answered = new Map<string, Binding>()
  /** Answered, and a client sent an unmap of it whose answer has not come. */
  readonly leaving = new Map<string, Binding>()
  /** Answered, behind an answered or leaving mapping of the same frontend. */
  readonly standbys = new Map<string, Binding>()
  /** The keys of answered mappings that were drained, and of those that may have been. */
  readonly drained = new Set<string>()
  readonly perhapsDrained = new Set<string>()

  map(bindings: ReadonlyArray<Binding>): void {
    for (const binding of bindings) {
      this.leaving.delete(bindingKey(binding))
      this.answered.set(bindingKey(binding), binding)
    }
  }

  unmapBegins(bindings: ReadonlyArray<Binding>): void {
    for (const binding of bindings) {
      const key = bindingKey(binding)
      this.answered.delete(key)
      this.leaving.set(key, binding)
      // What can't be unmapped stays as it was.
      if (this.drained.delete(key)) this.perhapsDrained.add(key)
    }
  }

  unmapped(bindings: ReadonlyArray<Binding>): void {
    for (const key of bindings.map(bindingKey)) {
      if (!this.leaving.delete(key)) continue
      this.perhapsDrained.delete(key)
      this.#takeOver(key)
    }
  }

  #takeOver(key: string): void {
    const standby = this.standbys.get(key)
    if (standby === undefined) return
    this.standbys.delete(key)
    this.answered.set(key, standby)
  }

  /** The answered mappings that the list lacks, has with another backend, or has as conflicted. */
  lost(listed: ReadonlyArray<Listed>): ReadonlyArray<string> {
    const there = new Map(listed.filter(isNoStandby).map((one) => [bindingKey(one), one]))
    const standing = new Set(listed.filter((one) => !isNoStandby(one)).map(textOf))
    const left = [...this.standbys.values()]
      .map(textOf)
      .flatMap((text) => (standing.has(text) ? [] : [`${text} does not stand by`]))
    const answered = [...this.answered.values()].flatMap((binding) => {
      const found = there.get(bindingKey(binding))
      if (found === undefined) return [`${textOf(binding)} is gone`]
      if (!sameBackend(found, binding)) return [`${textOf(binding)} leads to ${textOf(found)}`]
      if (found.State === "conflicted") return [`${textOf(binding)} is conflicted`]
      const key = bindingKey(binding)
      if (this.perhapsDrained.has(key) || isDrained(found) === this.drained.has(key)) return []
      return [`${textOf(binding)} is ${isDrained(found) ? "" : "not "}drained`]
    })
    return [...answered, ...left]
  }

  /** A mapping whose unmapping the kill interrupted is either still there or gone: records which. */
  settle(listed: ReadonlyArray<Listed>): void {
    const there = new Map(listed.filter(isNoStandby).map((one) => [bindingKey(one), one]))
    for (const [key, binding] of this.leaving) {
      const found = there.get(key)
      if (found !== undefined && sameBackend(found, binding)) this.answered.set(key, binding)
      else this.#takeOver(key)
    }
    this.leaving.clear()
    for (const key of this.perhapsDrained) {
      const found = there.get(key)
      if (found !== undefined && this.answered.has(key) && isDrained(found)) this.drained.add(key)
      else this.drained.delete(key)
    }
    this.perhapsDrained.clear()
  }

  /** Listed mappings that no answer named. */
  unanswered(listed: ReadonlyArray<Listed>): ReadonlyArray<Listed> {
    return listed.filter((one) => isNoStandby(one) && !this.answered.has(bindingKey(one)))
  }
}

export const isDrained = ({ State }: Listed): boolean => State === "drained"

export const isNoStandby = ({ State }: Listed): boolean => State !== "standby"

/** Pairs with the same port of an overlapping address for two backends, and frontends that are listed twice. */
export const doubled = (listed: ReadonlyArray<Listed>): ReadonlyArray<string> =>
  [...Map.groupBy(listed, ({ Proto, FrontendPort }) => `${Proto} ${FrontendPort}`).values()].flatMap(
    (samePort) =>
      samePort.flatMap((one, index) =>
        samePort
          .slice(index + 1)
          .filter((other) => overlap(one.FrontendIP, other.FrontendIP))
          .filter((other) => [one, other].every((each) => isNoStandby(each) && each.State !== "conflicted"))
          .filter((other) => bindingKey(other) === bindingKey(one) || other.FrontendPort !== sharedPort)
          .map((other) => `${textOf(one)} and ${textOf(other)}`)
      )
  )

const overlap = (one: string, other: string): boolean =>
  one === other ||
  (one.includes(":") === other.includes(":") &&
    [one, other].some((address) => /^(0\.0\.0\.0|::)$/.test(address)))
