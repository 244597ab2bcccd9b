/**
 * What the clients of a plugin know for sure, told by what they sent and what came back: which mappings were answered,
 * which calls were never answered, and so which of all that is there has a right to be.
 */
import type { WireBinding } from "../../test/lab/Plugin.ts"

/** As `ListPorts` has it. */
export interface Listed {
  readonly Proto: number
  readonly FrontendIP: string
  readonly FrontendPort: number
  readonly BackendIP: string
  readonly BackendPort: number
  readonly Mode: string
  readonly State: string
}

export type Binding = Pick<WireBinding, "Proto" | "FrontendIP" | "FrontendPort" | "BackendIP" | "BackendPort">

export const keyOf = ({ Proto, FrontendIP, FrontendPort }: Binding): string =>
  `${Proto === 6 ? "tcp" : "udp"} ${FrontendIP.includes(":") ? `[${FrontendIP}]` : FrontendIP}:${FrontendPort}`

/** As errors name it: `[::]:8080/tcp`. */
export const frontendOf = (binding: Binding): string => {
  const [protocol, frontend] = keyOf(binding).split(" ")
  return `${frontend}/${protocol}`
}

export const textOf = (binding: Binding): string =>
  `${keyOf(binding)} -> ${binding.BackendIP} ${binding.BackendPort}`

const sameBackend = (a: Binding, b: Binding) => a.BackendIP === b.BackendIP && a.BackendPort === b.BackendPort

export class Ledger {
  /** Answered, and nobody has asked to unmap it. */
  readonly answered = new Map<string, Binding>()
  /** Answered, and an unmap of it was begun whose answer never came. */
  readonly leaving = new Map<string, Binding>()

  map(bindings: ReadonlyArray<Binding>): void {
    for (const binding of bindings) {
      this.leaving.delete(keyOf(binding))
      this.answered.set(keyOf(binding), binding)
    }
  }

  unmapBegins(bindings: ReadonlyArray<Binding>): void {
    for (const binding of bindings) {
      this.answered.delete(keyOf(binding))
      this.leaving.set(keyOf(binding), binding)
    }
  }

  unmapped(bindings: ReadonlyArray<Binding>): void {
    for (const binding of bindings) this.leaving.delete(keyOf(binding))
  }

  /** The answered ones that the list lacks, leads elsewhere or does not serve. */
  lost(listed: ReadonlyArray<Listed>): ReadonlyArray<string> {
    const there = new Map(listed.map((one) => [keyOf(one), one]))
    return [...this.answered.values()].flatMap((binding) => {
      const found = there.get(keyOf(binding))
      if (found === undefined) return [`${textOf(binding)} is gone`]
      if (!sameBackend(found, binding)) return [`${textOf(binding)} leads to ${textOf(found)}`]
      return found.State === "conflicted" ? [`${textOf(binding)} is conflicted`] : []
    })
  }

  /** What was half unmapped when the plugin was killed is either as before or gone: from now on it is known which. */
  settle(listed: ReadonlyArray<Listed>): void {
    const there = new Map(listed.map((one) => [keyOf(one), one]))
    for (const [key, binding] of this.leaving) {
      const found = there.get(key)
      if (found !== undefined && sameBackend(found, binding)) this.answered.set(key, binding)
    }
    this.leaving.clear()
  }

  /** What is there without any answer having named it. */
  unanswered(listed: ReadonlyArray<Listed>): ReadonlyArray<Listed> {
    return listed.filter((one) => !this.answered.has(keyOf(one)))
  }
}

/** Pairs that hold the same port of an overlapping address for two backends, and frontends that are there twice. */
export const doubled = (listed: ReadonlyArray<Listed>): ReadonlyArray<string> =>
  [...Map.groupBy(listed, ({ Proto, FrontendPort }) => `${Proto} ${FrontendPort}`).values()].flatMap(
    (samePort) =>
      samePort.flatMap((one, index) =>
        samePort
          .slice(index + 1)
          .filter((other) => overlap(one.FrontendIP, other.FrontendIP))
          .filter(({ State }) => State !== "conflicted" && one.State !== "conflicted")
          .map((other) => `${textOf(one)} and ${textOf(other)}`)
      )
  )

const overlap = (one: string, other: string): boolean =>
  one === other ||
  (one.includes(":") === other.includes(":") &&
    [one, other].some((address) => /^(0\.0\.0\.0|::)$/.test(address)))
