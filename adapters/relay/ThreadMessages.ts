/**
 * What the plugin's thread and the relay's threads tell each other, and the tables that both see. Plain data: it is read on
 * either side without loading the other.
 */
import type { MessagePort } from "node:worker_threads"

/** A route as a thread serves it. */
export interface Serving {
  /** Small and dense; given to another route only after `ended` was reported. */
  readonly id: number
  /** The reserved socket. It stays its owner's: a thread neither opens nor closes it. */
  readonly fd: number
  readonly protocol: "tcp" | "udp"
  readonly family: 4 | 6
  /** Whether the socket is bound to the unspecified address. */
  readonly wildcard: boolean
  /** The one address of such a socket that this route is for; `undefined`: whatever no other route is for. */
  readonly local: Uint8Array | undefined
  /** `struct sockaddr_in` or `sockaddr_in6`. */
  readonly backend: Uint8Array
  readonly allow: ReadonlyArray<Network> | undefined
  readonly proxyProtocol: "v1" | "v2" | undefined
  readonly udpIdleMillis: number
}

export interface Network {
  readonly octets: Uint8Array
  readonly prefixLength: number
}

/**
 * Commands and reports travel in arrays, commands in the order of their numbers; `Exit` has none. Which sockets a thread
 * waits for is not among them: whoever tells it of a route has its epoll instance watch the socket.
 */
export type Command =
  | { readonly _tag: "Serve"; readonly number: number; readonly servings: ReadonlyArray<Serving> }
  | { readonly _tag: "Stop"; readonly number: number; readonly id: number; readonly graceMillis: number }
  /** Takes nothing more on any route, and ends each with what it has. */
  | { readonly _tag: "Drain"; readonly number: number; readonly graceMillis: number }
  | { readonly _tag: "Exit" }

export type Report =
  /** This command is obeyed, with all before it. */
  | { readonly _tag: "Done"; readonly number: number }
  /** The last connection of a stopped route is gone. */
  | { readonly _tag: "Ended"; readonly id: number }
  /** What this route led to came back to the relay, and was ended. */
  | { readonly _tag: "Loop"; readonly id: number }
  /** Something found no descriptor, or has found one for a while again. */
  | { readonly _tag: "Descriptors"; readonly lacking: boolean }
  /** This thread has had little rest lately. */
  | { readonly _tag: "Busy" }

export interface Settings {
  /** A drained UDP flow goes on for so long. */
  readonly answerMillis: number
  readonly connectMillis: number
  readonly maxFlows: number
}

/** What a thread is started with. */
export interface ThreadData {
  readonly port: MessagePort
  /** An eventfd: written to when `port` has something that can't wait for the next event. */
  readonly wake: number
  /** The epoll instance it waits in, from which its owner takes reserved sockets, and to which it adds them. */
  readonly epoll: number
  /**
   * A uint16 for each descriptor, which rises when it is closed: an event of an older generation is about what was there
   * before. Written by whoever has the descriptor: this thread for its own, its owner for the reserved sockets.
   */
  readonly generations: SharedArrayBuffer
  /** Three int32: see `turnOf`. */
  readonly turn: SharedArrayBuffer
  /** A byte for each descriptor: what it is to this thread. Whoever buries the thread closes what was its own. */
  readonly kinds: SharedArrayBuffer
  /** Four float64 for each route: see `counterOf`. */
  readonly counters: SharedArrayBuffer
  /** An int32 for each port of TCP, then for each of UDP: see `Loops`. Of all threads together. */
  readonly ownPorts: SharedArrayBuffer
  /** Five int32, of all threads together: see `budgetOf`. */
  readonly budget: SharedArrayBuffer
  readonly settings: Settings
}

/** More descriptors than a process gets by default; memory is used only for those that are. */
export const maxDescriptors = 1 << 20
export const maxRoutes = 1 << 17
export const portCount = 1 << 16

export const kindOf = {
  none: 0,
  wake: 1,
  listener: 2,
  front: 3,
  /** From here on a thread's own. */
  end: 4,
  flow: 5,
  pipe: 6
} as const

export const isOwn = (kind: number): boolean => kind >= kindOf.end

/**
 * How a thread is told something without being woken. `rests` is 1 while it waits for events, and 0 before it does anything
 * about them; then it reads what it was told, if `told`, the number of messages, is another than when it read last, which
 * is `heard`. So whoever has told it something, and sees it rest after that, knows that it will do nothing before it has
 * read it.
 */
export const turnOf = { rests: 0, told: 1, heard: 2 } as const
export const turnWords = 3

/**
 * `available` is what the relay may have of descriptors as it was measured last, `taken` what its threads have. `refusedTcp`
 * are the times that a listener was left waiting, `refusedUdp` the flows that found no descriptor.
 */
export const budgetOf = { available: 0, taken: 1, threads: 2, refusedTcp: 3, refusedUdp: 4 } as const
export const budgetWords = 5

export const countersPerRoute = 4
export const counterOf = { connections: 0, refused: 1, bytesIn: 2, bytesOut: 3 } as const

/** Of connections to clients and to backends alike. Linux waits two hours by itself. */
export const keepaliveSeconds = 60
export const keepaliveIntervalSeconds = 15
