/** etcd v3 by its JSON gateway, as the service `Etcd`. */
export * as EtcdClient from "./EtcdClient.ts"
export { checkEndpoints, type EndpointStatus } from "./EtcdEndpoints.ts"
export { type EtcdEndpoint, type EtcdOptions, parseEndpoints } from "./EtcdOptions.ts"
