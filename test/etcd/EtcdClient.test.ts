import { clusterStoreConformance } from "../cluster/clusterStoreConformance.ts"
import { etcdConformance } from "../cluster/etcdConformance.ts"
import { describeNeeding } from "../lab/describeLab.ts"
import { realEtcd } from "./realEtcd.ts"

describeNeeding("a real etcd", ["etcd", "etcdctl"], () => {
  etcdConformance("its client", realEtcd)
  clusterStoreConformance("its client", realEtcd)
})
