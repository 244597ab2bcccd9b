// biome-ignore-all lint/style/noNonNullAssertion: every route below maxRoutes has its place in every table
/**
 * Ends connections and flows that would otherwise continue: those of a closed route once its grace time is over,
 * and those of clients outside a narrowed allow-list.
 */
import { ends, routeIdOf } from "./Epoll.ts"
import { openConnections, type ServedRoute } from "./RouteTable.ts"
import { reset, resetRefused } from "./TcpConnections.ts"
import { endFlows, endRefusedFlows } from "./UdpFlows.ts"
import { refuseForeign } from "./WaitingClients.ts"

interface Ending {
  readonly route: ServedRoute
  readonly due: number
}

const endings = new Map<number, Ending>()

export const hasEndings = (): boolean => endings.size > 0

/** Ends the connections and flows that the route would not admit now. */
export const endRefused = (route: ServedRoute): void => {
  if (openConnections[route.id]! > 0) {
    resetRefused(route)
    refuseForeign(route)
  }
  if (route.flows !== undefined) endRefusedFlows(route, route.flows)
}

export const endConnections = (route: ServedRoute, due: number): void => {
  endings.set(route.id, { route, due })
}

/** Ends what has exceeded its grace time, and reports each route of which nothing is left. */
export const runEndings = (now: number, ended: (id: number) => void): void => {
  const over = new Set<number>()
  for (const [id, { route, due }] of endings) {
    if (due > now) continue
    if (openConnections[id]! > 0) over.add(id)
    endFlows(route)
  }
  if (over.size > 0) resetAll(over)
  for (const [id, { route }] of endings) {
    if (openConnections[id]! > 0 || (route.flows?.size ?? 0) > 0) continue
    endings.delete(id)
    ended(id)
  }
}

/** Makes one pass, however many routes end at once. */
const resetAll = (routes: ReadonlySet<number>): void => {
  for (const fd of ends()) if (routes.has(routeIdOf[fd]!)) reset(fd)
}
