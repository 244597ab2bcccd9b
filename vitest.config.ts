import { defineConfig } from "vitest/config"

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    testTimeout: 30_000,
    hookTimeout: 60_000,
    // Most of what takes time waits for a kernel or a child: one worker per processor, none kept back.
    maxWorkers: 2
  }
})
