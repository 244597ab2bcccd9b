/** The harness's own entry, with a mapper that has a fault: it forgets to unmap the first of what it is told to. */
import { type MemoryTargetOptions, memoryTarget as right } from "../../src/testing/index.ts"

export { type ModelHost, run, type Script, violationText } from "../../src/testing/index.ts"

export const memoryTarget = (options: MemoryTargetOptions) =>
  right({
    ...options,
    wrap: (driver) => ({
      ...driver,
      unmapPorts: ({ bindings, labels }) => driver.unmapPorts({ bindings: bindings.slice(1), labels })
    })
  })
