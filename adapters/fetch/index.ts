/** The plugin as a `fetch` handler, for serverless hosts: nothing here imports Node or needs one of its globals. */
export type { Handler, Page, Posted, Reply, RouteOptions } from "../docker/Routes.ts"
export * from "../docker/WebHandler.ts"
