/** A packet's way through one base chain: whether it is dropped, and by which rule. Pure. */
import { type Answer, every, matches } from "./Match.ts"
import type { Packet } from "./Packet.ts"
import type { Chain, Rule, Table, Verdict } from "./Tables.ts"

export interface Passage {
  readonly verdict: "accept" | "drop"
  /** Where it was decided. */
  readonly chain: string
  /** `policy drop` where no rule did. */
  readonly rule: string
  /** Rules that would decide otherwise about packets of one source, over a limit, and the like. */
  readonly exceptions: ReadonlyArray<string>
  /** As the rules on the way set it. */
  readonly mark: number | undefined
}

/** `assumed` may decide for a chain as it will be by the time the packet comes. */
export const walk = (
  table: Table,
  base: Chain,
  first: Packet,
  assumed: (chain: string, packet: Packet) => "accept" | undefined = () => undefined
): Passage => {
  const exceptions: Array<string> = []
  let packet = first
  const ended = (verdict: Passage["verdict"], chain: Chain, rule: string): Passage => ({
    verdict,
    chain: chain.name,
    rule,
    exceptions,
    mark: packet.mark
  })

  /** `undefined` where it returned. */
  const through = (chain: Chain, depth: number): Passage | undefined => {
    if (assumed(chain.name, packet) === "accept") return ended("accept", chain, "")
    for (const rule of chain.rules) {
      const verdict = decide(rule)
      if (verdict === undefined) continue
      if (verdict._tag === "Accept") return ended("accept", chain, rule.text)
      if (verdict._tag === "Drop") return ended("drop", chain, rule.text)
      if (verdict._tag !== "Jump" && verdict._tag !== "Goto") return undefined
      const next = table.chains.get(verdict.chain)
      const passage = next === undefined || depth > deepest ? undefined : through(next, depth + 1)
      if (passage !== undefined || verdict._tag === "Goto") return passage
    }
    return undefined
  }

  const decide = (rule: Rule): Verdict | undefined => {
    const answers: Array<Answer> = []
    for (const step of rule.steps) {
      switch (step._tag) {
        case "Match": {
          const answer = step.test(packet)
          if (answer === "no") return undefined
          answers.push(answer)
          break
        }
        case "Mark":
          if (matches(every(answers))) packet = { ...packet, mark: step.mark(packet) }
          break
        case "Choose":
          for (const { test, verdict } of step.cases) {
            const decided = decideBy(rule, [...answers, test(packet)], verdict)
            if (decided !== undefined) return decided
          }
          break
        case "Decide": {
          return decideBy(rule, answers, step.verdict)
        }
      }
    }
    return undefined
  }

  const decideBy = (rule: Rule, answers: ReadonlyArray<Answer>, verdict: Verdict): Verdict | undefined => {
    const answer = every(answers)
    const special = answer === "rarely" || answer === "unknown"
    if ((special && verdict._tag !== "Drop") || (answer === "mostly" && verdict._tag === "Drop"))
      exceptions.push(rule.text)
    return matches(answer) ? verdict : undefined
  }

  return (
    through(base, 0) ?? ended(base.base?.policy ?? "accept", base, `policy ${base.base?.policy ?? "accept"}`)
  )
}

/** The kernel allows 16. */
const deepest = 32
