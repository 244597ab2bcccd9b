import { memoryEtcd } from "../support/cluster.ts"
import { etcdConformance } from "./etcdConformance.ts"

etcdConformance("the etcd in memory", memoryEtcd)
