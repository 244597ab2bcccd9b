/** Prints at the end of a run what this machine lacked for the skipped tests, and how to install it. */
import type { Reporter, TestModule } from "vitest/node"
import { type Need, packagesOf, unpackaged } from "./Capabilities.ts"

export class LackingReporter implements Reporter {
  onTestRunEnd(modules: ReadonlyArray<TestModule>): void {
    const lacks = new Set<Need>()
    let skipped = 0
    for (const module of modules)
      for (const test of module.children.allTests("skipped")) {
        const needs = test.meta().lacks ?? []
        if (needs.length > 0) skipped++
        for (const need of needs) lacks.add(need)
      }
    if (skipped > 0) process.stdout.write(`${skippedText(skipped, [...lacks])}\n`)
  }
}

const skippedText = (skipped: number, lacks: ReadonlyArray<Need>): string => {
  const packages = packagesOf(lacks)
  const rest = unpackaged(lacks)
  return [
    `SKIPPED: ${skipped} tests or groups of tests, for what this machine lacks`,
    ...(packages.length === 0 ? [] : [`to run them: apt install ${packages.join(" ")}`]),
    ...(rest.length === 0 ? [] : [`no package has ${rest.join(", ")}`])
  ].join("; ")
}
