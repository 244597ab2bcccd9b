/**
 * The processor time that a process has used so far: all its threads, in microseconds. Source: proc(5), schedstat.
 */
import * as Fs from "node:fs"

export const processorMicros = (pid: number): number => {
  let nanos = 0
  for (const thread of Fs.readdirSync(`/proc/${pid}/task`))
    nanos += Number(Fs.readFileSync(`/proc/${pid}/task/${thread}/schedstat`, "latin1").split(" ")[0])
  return nanos / 1000
}
