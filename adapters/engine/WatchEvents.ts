/** What the worker of a watch reacts to. */
import type { Connections } from "../../src/protocol/Driver.ts"
import type { PublishedPort } from "../../src/protocol/PortBinding.ts"
import type { EngineEvent } from "./Engine.ts"

/**
 * `Resync` also lists the driver's mappings, which other callers may have changed. `Interfaces`: an interface that is
 * named has other addresses.
 */
export type WatchEvent = EngineEvent | SleepEvent | { readonly _tag: "Resync" | "Interfaces" }

/** About containers that sleep. */
export type SleepEvent =
  /** A client waits here. */
  | { readonly _tag: "Waits"; readonly frontend: PublishedPort }
  /** The Engine has answered a start; `why` if it refused. */
  | { readonly _tag: "Started"; readonly id: string; readonly why: string | undefined }
  /** The port of a group takes connections. */
  | { readonly _tag: "Opened"; readonly id: string; readonly key: string }
  | { readonly _tag: "Looked"; readonly id: string; readonly connections: Connections | undefined }
  /** The Engine has answered a stop, or it was not asked; `why` if the container was not stopped. */
  | { readonly _tag: "Stopped"; readonly id: string; readonly why: string | undefined }
