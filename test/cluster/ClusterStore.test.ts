import { memoryEtcd } from "../support/cluster.ts"
import { clusterStoreConformance } from "./clusterStoreConformance.ts"

clusterStoreConformance("the etcd in memory", memoryEtcd)
