import { memoryEtcd } from "../support/cluster.ts"
import { liveThroughFaults } from "./anyFaults.ts"
import { clusterStoreConformance } from "./clusterStoreConformance.ts"

clusterStoreConformance("the etcd in memory", memoryEtcd)
liveThroughFaults(0, 30)
