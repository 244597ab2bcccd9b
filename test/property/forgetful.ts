/** The harness's own entry, with a faulty mapper: it forgets to unmap the first binding of each request. */
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
