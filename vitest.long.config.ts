/** `npm run test:long`: what takes too long for the gate. */
import { defineConfig } from "vitest/config"

export default defineConfig({
  test: {
    include: ["test/long/**/*.test.ts"],
    testTimeout: 1_800_000,
    hookTimeout: 1_800_000,
    maxWorkers: 1
  }
})
