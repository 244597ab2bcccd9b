/** The drills that are short; all of them are in `test/long/cluster.test.ts`. */
import { compacted, frozen, restored, runInOneLab } from "./drills.ts"

runInOneLab("hosts agree after one was frozen, one was away, and etcd went back in time", [
  frozen,
  compacted,
  restored
])
