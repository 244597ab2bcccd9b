import { fileURLToPath } from "node:url"
import { defineConfig } from "vitest/config"

const compiled = fileURLToPath(new URL("node_modules/.cache/compiled", import.meta.url))

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    // Against what hangs; no test is about how fast a machine is.
    testTimeout: 180_000,
    hookTimeout: 60_000,
    // Most of what takes time waits for a kernel or a child: one worker per processor, none kept back.
    maxWorkers: 2,
    // The plugin is started some hundred times; only the first of them compile it.
    env: { NODE_COMPILE_CACHE: compiled }
  }
})
