// biome-ignore-all lint/style/noNonNullAssertion: every route below maxRoutes has its place in every table
/** The routes of a thread: which one serves the traffic of a socket, its backend, and its allow-list. */

import type { Mutable } from "effect/Types"
import type { Limits } from "../../../src/protocol/Limits.ts"
import type { SlotShare } from "../../../src/protocol/Slots.ts"
import { slotOfSource } from "../../../src/relay/SourceHash.ts"
import * as S from "../../linux/Syscalls.ts"
import type { LimitState } from "../LimitState.ts"
import { maxRoutes, type Serving } from "../ThreadMessages.ts"
import { memory } from "./Memory.ts"
import { report } from "./ThreadData.ts"

/** What a later `Serve` of the same route may change is written anew. */
export interface ServedRoute extends Mutable<Omit<Serving, "backend" | "limits">> {
  backendLength: number
  /** See `Limiting`. */
  limits: RouteLimits | undefined
  /** The next route of the same socket. */
  next: ServedRoute | undefined
  flows: FlowLists | undefined
  /** See `Loops`. */
  inLoop: boolean
  lastKept: number
  /** When a waiting client was last reported. */
  waitsReported: number
  /** Whether its backend took the last connection of a waiting client at once, as one on this host does. */
  takesAtOnce: boolean
}

/** The limits of a route's frontend, with what they have counted. */
export interface RouteLimits extends Limits {
  readonly state: LimitState
}

/** The flows of a route in three lists, each by the time of the last packet. */
export interface FlowLists {
  size: number
  /** The oldest flow of a list at the list's number, the newest in the next place. No flow has descriptor 0. */
  readonly edges: Int32Array
}

/** The backends' addresses, 32 bytes each. */
const sizeOfBackend = 32
const backends = memory(sizeOfBackend * maxRoutes)
const backendBytes = new Uint8Array(backends.buffer)
const backendWords = new Uint16Array(backends.buffer)

export const backendAddress = (route: ServedRoute): number => backends.address + route.id * sizeOfBackend
/** `AF_INET` or `AF_INET6`. */
export const backendFamily = (route: ServedRoute): number => backendWords[(route.id * sizeOfBackend) / 2]!

const byId: Array<ServedRoute | undefined> = []
/** By the descriptor of their socket. */
const firstOf: Array<ServedRoute | undefined> = []

export const routeById = (id: number): ServedRoute | undefined => byId[id]
export const allRoutes = (): ReadonlyArray<ServedRoute> => byId.filter((route) => route !== undefined)
export const firstRoute = (fd: number): ServedRoute | undefined => firstOf[fd]

/** Open connections of each route. */
export const openConnections = new Int32Array(maxRoutes)

/** Adds a route, or replaces the one with its id, which keeps its connections and its limits. */
export const putRoute = (serving: Serving): ServedRoute => {
  const { id, fd, protocol, family, wildcard, local, backend, limits: _, ...policy } = serving
  backendBytes.set(backend, id * sizeOfBackend)
  const present = byId[id]
  if (present !== undefined)
    return Object.assign(present, {
      ...policy,
      backendLength: backend.length,
      inLoop: false,
      waitsReported: -Infinity
    })
  const route: ServedRoute = {
    id,
    fd,
    protocol,
    family,
    wildcard,
    local,
    ...policy,
    limits: undefined,
    backendLength: backend.length,
    next: firstOf[fd],
    flows: undefined,
    inLoop: false,
    lastKept: 0,
    waitsReported: -Infinity,
    takesAtOnce: false
  }
  byId[id] = route
  firstOf[fd] = route
  return route
}

/** A client waits for a backend of this route: reported at once, and about once a second while others follow. */
export const reportWaits = (route: ServedRoute, now: number): void => {
  if (now - route.waitsReported < 1000) return
  route.waitsReported = now
  report({ _tag: "Waits", id: route.id })
}

/** Removes a route; `true` if it was the socket's last. */
export const removeRoute = (route: ServedRoute): boolean => {
  byId[route.id] = undefined
  const first = firstOf[route.fd]
  if (first === route) {
    firstOf[route.fd] = route.next
    return route.next === undefined
  }
  for (let other = first; other !== undefined; other = other.next)
    if (other.next === route) other.next = route.next
  return false
}

/** Whether one route serves the socket whatever the destination address. */
export const servesAll = (first: ServedRoute): boolean =>
  first.next === undefined && first.local === undefined

/** The route for the address at `offset`: the one for this address, else the one for all others. */
export const routeFor = (first: ServedRoute, bytes: Uint8Array, offset: number): ServedRoute | undefined => {
  let rest: ServedRoute | undefined
  for (let route: ServedRoute | undefined = first; route !== undefined; route = route.next) {
    if (route.local === undefined) rest = route
    else if (route.local.every((octet, index) => octet === bytes[offset + index])) return route
  }
  return rest
}

/**
 * The route of the same frontend that has the client's slot. `found` is any of them; another frontend's service is
 * left alone.
 */
export const routeOfSlot = (
  first: ServedRoute,
  found: ServedRoute,
  bytes: Uint8Array,
  source: number
): ServedRoute => {
  const { share, family } = found
  if (share === undefined) return found
  const { balance, size } = share
  if (balance === "random") return randomRoute(first, found, isLeftToRelay(first, found, bytes, source))
  const slot = slotOfSource(bytes, source, family === 4 ? 4 : 16, size)
  for (let route: ServedRoute | undefined = first; route !== undefined; route = route.next)
    if (isSameFrontend(route, found) && hasSlot(route.share, slot, size)) return route
  return found
}

/**
 * Any route of the frontend, by the number of its slots. Where the kernel has drawn a slot before, and led the client
 * to the backend of that slot if it could, the draw is among the other backends: else those would get too little.
 */
const randomRoute = (first: ServedRoute, found: ServedRoute, amongAll: boolean): ServedRoute => {
  let sum = 0
  for (let route: ServedRoute | undefined = first; route !== undefined; route = route.next)
    sum += weightOf(route, found, amongAll)
  if (sum === 0 && !amongAll) return randomRoute(first, found, true)
  let drawn = Math.random() * sum
  for (let route: ServedRoute | undefined = first; route !== undefined; route = route.next) {
    drawn -= weightOf(route, found, amongAll)
    if (drawn < 0) return route
  }
  return found
}

/** The route's part of all slots; 0 if it is not to be drawn. */
const weightOf = (route: ServedRoute, found: ServedRoute, amongAll: boolean): number => {
  const { share, isRedirected } = route
  if (share === undefined || (isRedirected && !amongAll) || !isSameFrontend(route, found)) return 0
  return share.slots.length / share.size
}

/** Whether the kernel leaves a source to the relay without drawing a slot, as the table's `published` chains do. */
const isLeftToRelay = (
  first: ServedRoute,
  { family }: ServedRoute,
  bytes: Uint8Array,
  source: number
): boolean => {
  if (isOfThisHost(family, bytes, source)) return true
  for (let route: ServedRoute | undefined = first; route !== undefined; route = route.next)
    if (isBackend(route, bytes, source)) return true
  return false
}

/** A loopback address, or a link-local one of IPv6. */
const isOfThisHost = (family: 4 | 6, bytes: Uint8Array, source: number): boolean => {
  if (family === 4) return bytes[source] === 127
  if (bytes[source] === 0xfe && (bytes[source + 1]! & 0xc0) === 0x80) return true
  for (let index = 0; index < 15; index++) if (bytes[source + index] !== 0) return false
  return bytes[source + 15] === 1
}

const isBackend = (route: ServedRoute, bytes: Uint8Array, source: number): boolean => {
  const { id, family } = route
  if ((backendFamily(route) === S.AF_INET ? 4 : 6) !== family) return false
  const at = id * sizeOfBackend + addressOffset(route)
  const length = family === 4 ? 4 : 16
  for (let index = 0; index < length; index++)
    if (backendBytes[at + index] !== bytes[source + index]) return false
  return true
}

export const isSameFrontend = ({ local }: ServedRoute, found: ServedRoute): boolean =>
  local === found.local ||
  (local !== undefined && (found.local?.every((octet, index) => octet === local[index]) ?? false))

/** While a service grows, its routes have different numbers of slots for a moment. */
const hasSlot = (share: SlotShare | undefined, slot: number, size: number): boolean => {
  if (share === undefined) return false
  const own = Math.floor((slot * share.size) / size)
  let [low, high] = [0, share.slots.length - 1]
  while (low <= high) {
    const middle = (low + high) >> 1
    const at = share.slots[middle]!
    if (at === own) return true
    if (at < own) low = middle + 1
    else high = middle - 1
  }
  return false
}

/** The offset of the address in a `struct sockaddr_in` or `sockaddr_in6` of the route's family. */
export const addressOffset = ({ family }: ServedRoute): number => (family === 4 ? 4 : 8)

/** Whether the route admits the client whose socket address is at `offset`. */
export const admitsClient = (route: ServedRoute, bytes: Uint8Array, offset: number): boolean =>
  admitsSource(route, bytes, offset + addressOffset(route))

/** Whether the route admits the source at `offset`. */
export const admitsSource = ({ allow, family }: ServedRoute, bytes: Uint8Array, offset: number): boolean =>
  allow === undefined ||
  allow.some(({ octets, prefixLength }) => {
    if (octets.length !== (family === 4 ? 4 : 16)) return false
    const whole = prefixLength >> 3
    for (let index = 0; index < whole; index++) if (octets[index] !== bytes[offset + index]) return false
    const mask = (0xff00 >> (prefixLength & 7)) & 0xff
    return mask === 0 || ((octets[whole]! ^ bytes[offset + whole]!) & mask) === 0
  })
