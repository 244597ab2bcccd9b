import { availableParallelism } from "node:os"
import { fileURLToPath } from "node:url"
import { defineConfig } from "vitest/config"
import { BaseSequencer, type TestSpecification } from "vitest/node"
import { LackingReporter } from "./test/lab/LackingReporter.ts"

const compiled = fileURLToPath(new URL("node_modules/.cache/compiled", import.meta.url))

/** Of a minute or two each. */
const longest = ["engine/services", "serve/takeover", "serve/engine", "serve/crash"]

/** Begins with these, so that no worker waits for one of them alone at the end. */
class LongestFirst extends BaseSequencer {
  override async sort(files: Array<TestSpecification>): Promise<Array<TestSpecification>> {
    const isShort = ({ moduleId }: TestSpecification) => !longest.some((name) => moduleId.includes(name))
    const sorted = await super.sort(files)
    return sorted.sort((a, b) => Number(isShort(a)) - Number(isShort(b)))
  }
}

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    // `npm run test:long`
    exclude: ["test/long/**"],
    // Against what hangs; no test is about how fast a machine is.
    testTimeout: 180_000,
    hookTimeout: 60_000,
    // Most of what takes time waits for a kernel or a child: one worker per processor, none kept back.
    maxWorkers: availableParallelism(),
    reporters: ["default", new LackingReporter()],
    sequence: { sequencer: LongestFirst },
    // The plugin is started some hundred times; only the first of them compile it.
    env: { NODE_COMPILE_CACHE: compiled }
  }
})
