// biome-ignore-all lint/style/noNonNullAssertion: every route below maxRoutes has its place in every table
/** Refuses new connections and flows beyond the limits of their route's frontend. */
import { LimitState } from "../LimitState.ts"
import { counterOf, type ServedLimits } from "../ThreadMessages.ts"
import { openConnections, type ServedRoute } from "./RouteTable.ts"
import { count, index } from "./ThreadData.ts"

/** Takes the route's new limits. What it has open counts from the first one on. */
export const setLimits = (route: ServedRoute, limits: ServedLimits | undefined): void => {
  const before = countedOpen(route)
  const open = openConnections[route.id]! + (route.flows?.size ?? 0)
  route.limits = limits && { ...limits, state: new LimitState(limits.state, index, process.hrtime.bigint) }
  countedOpen(route)?.addPlaces(open)
  before?.addPlaces(-open)
}

/** Where the open connections are counted, if they are limited. */
const countedOpen = ({ limits }: ServedRoute): LimitState | undefined =>
  limits?.connections === undefined ? undefined : limits.state

/**
 * Whether the limits let the source at `offset` begin; then it has a place until `leave`. A source beyond its own rate
 * takes nothing from the others, nor does one that comes while there is no place.
 */
export const enter = (route: ServedRoute, bytes: Uint8Array, offset: number): boolean => {
  if (route.limits === undefined) return true
  const { connections, rate, ratePerSource, state } = route.limits
  const refuse = (counter: number) => {
    count(route.id, counter, 1)
    return false
  }
  if (connections !== undefined && state.open >= connections) return refuse(counterOf.overConnections)
  if (ratePerSource !== undefined) {
    const length = route.family === 4 ? 4 : 16
    if (!state.takeOfSource(ratePerSource, bytes, offset, length)) return refuse(counterOf.overSourceRate)
  }
  if (rate !== undefined && !state.takeOfRate(rate)) return refuse(counterOf.overRate)
  return connections === undefined || state.takePlace(connections) || refuse(counterOf.overConnections)
}

/** Gives back the place of a connection or flow that ended. A route without limits any more has given back all of its. */
export const leave = (route: ServedRoute | undefined): void => {
  if (route !== undefined) countedOpen(route)?.addPlaces(-1)
}
