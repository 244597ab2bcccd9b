/** Counters and inputs of the abuse tests. */
import * as Fs from "node:fs"
import * as V8 from "node:v8"
import * as Vm from "node:vm"

/** 10,000, or as many as `PORTMAPPER_MALFORMED` says. */
export const malformedCount = Number(process.env["PORTMAPPER_MALFORMED"] ?? 10_000)

/** The timeout for that many. */
export const malformedTimeoutMillis = 180_000 + 20 * malformedCount

/** Open descriptors of this process. */
export const descriptors = (): number => Fs.readdirSync("/proc/self/fd").length

/** Bytes of live objects. */
export const collectGarbage = (): number => {
  V8.setFlagsFromString("--expose-gc")
  const collect = Vm.runInNewContext("gc") as () => void
  collect()
  collect()
  const { heapUsed, external, arrayBuffers } = process.memoryUsage()
  return heapUsed + external + arrayBuffers
}

/** Bodies that are not valid requests, a different one for each index. */
export const malformed = (): ((index: number) => Buffer) => {
  const valid = Buffer.from(
    '{"Reqs":[{"Proto":6,"BackendIP":"172.17.0.2","BackendPort":80,"FrontendIP":"0.0.0.0","FrontendPort":80,"FrontendPortEnd":80}],"Labels":{"a":"b"}}'
  )
  return (index) => {
    switch (index % 6) {
      case 0:
        return valid.subarray(0, index % (valid.length - 1))
      case 1: {
        const bytes = Buffer.from(valid)
        bytes[0] = index & 0xff
        return bytes[0] === 0x7b ? bytes.subarray(1) : bytes
      }
      case 2:
        return Buffer.from("[".repeat(1 + (index % 2000)))
      case 3:
        return Buffer.from(`{"Reqs":[{"Proto":${index},"BackendIP":"${index}"}]}`)
      case 4:
        return Buffer.from(Array.from({ length: 1 + (index % 64) }, (_, at) => (index * 31 + at * 7) & 0xff))
      default:
        return Buffer.from(`{"Reqs":[${'{"FrontendPort":70000},'.repeat(index % 50)}{"FrontendPort":-1}]}`)
    }
  }
}
