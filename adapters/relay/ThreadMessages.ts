/**
 * The messages between the plugin's thread and the relay's threads, and the tables that they share. Plain data:
 * either side reads it without loading the other.
 */
import type { MessagePort } from "node:worker_threads"
import type { Limits } from "../../src/protocol/Limits.ts"
import type { SlotShare } from "../../src/protocol/Slots.ts"

/** A route as a thread serves it. */
export interface Serving {
  /** Small and dense; reused for another route only after `ended` was reported. */
  readonly id: number
  /** The reserved socket. Its owner keeps it: a thread neither opens nor closes it. */
  readonly fd: number
  readonly protocol: "tcp" | "udp"
  readonly family: 4 | 6
  /** Whether the socket is bound to the unspecified address. */
  readonly wildcard: boolean
  /**
   * The one address of such a socket that this route serves; `undefined`: every address without a route of its own.
   */
  readonly local: Uint8Array | undefined
  /** `struct sockaddr_in` or `sockaddr_in6`. */
  readonly backend: Uint8Array
  readonly allow: ReadonlyArray<Network> | undefined
  readonly proxyProtocol: "v1" | "v2" | undefined
  readonly udpIdleMillis: number
  /** Where it is one of several routes of its frontend: a client is served by the one that has its slot. */
  readonly share: SlotShare | undefined
  /** Whether the kernel itself leads to this backend all that is not left to the relay whoever the backend is. */
  readonly isRedirected: boolean
  /** Whether its backend takes no new connections, nor has slots. */
  readonly isIdle: boolean
  /** How long clients wait for a backend that does. */
  readonly waitMillis: number
  readonly limits: ServedLimits | undefined
}

/** The limits of a frontend; all of its routes, in all threads, have the same `state`: see `LimitState`. */
export interface ServedLimits extends Limits {
  readonly state: SharedArrayBuffer
}

export interface Network {
  readonly octets: Uint8Array
  readonly prefixLength: number
}

/**
 * Commands and reports travel in arrays, commands in the order of their numbers; `Exit` has none. No command adds a
 * socket to the thread's epoll instance: the thread that sends `Serve` adds it itself.
 */
export type Command =
  | { readonly _tag: "Serve"; readonly number: number; readonly servings: ReadonlyArray<Serving> }
  | { readonly _tag: "Stop"; readonly number: number; readonly id: number; readonly graceMillis: number }
  /** Stops accepting on every route, and ends each with its last connection. */
  | { readonly _tag: "Drain"; readonly number: number; readonly graceMillis: number }
  | { readonly _tag: "Exit" }

export type Report =
  /** This command is done, and all before it. */
  | { readonly _tag: "Done"; readonly number: number }
  /** The last connection of a stopped route is gone. */
  | { readonly _tag: "Ended"; readonly id: number }
  /** A client waits for a backend of this route: the first one, and about one a second of the others. */
  | { readonly _tag: "Waits"; readonly id: number }
  /** Traffic that this route forwarded came back to the relay, which ended it. */
  | { readonly _tag: "Loop"; readonly id: number }
  /** A connection or flow was refused for lack of descriptors, or none has been for a while. */
  | { readonly _tag: "Descriptors"; readonly lacking: boolean }
  /** This thread has been busy lately. */
  | { readonly _tag: "Busy" }

export interface Settings {
  /** How long a drained UDP flow continues. */
  readonly answerMillis: number
  readonly connectMillis: number
  readonly maxFlows: number
}

/** The data a thread starts with. */
export interface ThreadData {
  /** Its number among the relay's threads. */
  readonly index: number
  /** The URL of the module that started it, beside which koffi is found. */
  readonly loadedBy: string
  readonly port: MessagePort
  /** An eventfd, written when `port` has a message that can't wait for the next event. */
  readonly wake: number
  /** The epoll instance that the thread waits in; its owner adds reserved sockets to it and removes them. */
  readonly epoll: number
  /**
   * A uint16 for each descriptor, incremented when it is closed: an event of an older generation belongs to the
   * closed one. The thread increments those of its own descriptors, its owner those of the reserved sockets.
   */
  readonly generations: SharedArrayBuffer
  /** Three int32: see `turnOf`. */
  readonly turn: SharedArrayBuffer
  /**
   * A byte for each descriptor: its role in this thread. After the thread's death, its owner closes those that were
   * the thread's own.
   */
  readonly kinds: SharedArrayBuffer
  /** Some float64 for each route: see `counterOf`. */
  readonly counters: SharedArrayBuffer
  /** An int32 for each port of TCP, then for each of UDP: see `Loops`. Shared by all threads. */
  readonly ownPorts: SharedArrayBuffer
  /** Five int32, shared by all threads: see `budgetOf`. */
  readonly budget: SharedArrayBuffer
  readonly settings: Settings
}

/** More descriptors than a process gets by default; only used descriptors take memory. */
export const maxDescriptors = 1 << 20
export const maxRoutes = 1 << 17
export const portCount = 1 << 16

export const kindOf = {
  none: 0,
  wake: 1,
  listener: 2,
  front: 3,
  /** From here on the thread's own descriptors. */
  end: 4,
  flow: 5,
  pipe: 6,
  raw: 7,
  waiting: 8
} as const

export const isOwn = (kind: number): boolean => kind >= kindOf.end

/**
 * How a thread gets a command without being woken. `rests` is 1 while it waits for events; the thread sets it to 0
 * before it handles any, and then reads its messages if `sent`, the number of messages sent, differs from `read`,
 * the number at its last read. So a sender that sees `rests` at 1 after it sent knows that the thread will read the
 * message before it does anything else.
 */
export const turnOf = { rests: 0, sent: 1, read: 2 } as const
export const turnWords = 3

/**
 * `available` is the number of descriptors that the relay may have, as last measured; `taken` the number that its
 * threads have. `refusedTcp` counts the times that a listener was left waiting, `refusedUdp` the flows that found
 * no descriptor.
 */
export const budgetOf = { available: 0, taken: 1, threads: 2, refusedTcp: 3, refusedUdp: 4 } as const
export const budgetWords = 5

export const countersPerRoute = 8
/** `open` falls, too, and is 0 after the thread's death. The four before it are what each label refused. */
export const counterOf = {
  ...{ connections: 0, bytesIn: 1, bytesOut: 2, open: 7 },
  ...{ overAllow: 3, overConnections: 4, overRate: 5, overSourceRate: 6 }
} as const

/** For connections to clients and to backends alike. Linux waits two hours by default. */
export const keepaliveSeconds = 60
export const keepaliveIntervalSeconds = 15
