// biome-ignore-all lint/style/noNonNullAssertion: every route below maxRoutes has its place in every table
/** Routes that take nothing more: what they have may go on for the grace time, then it is reset, or forgotten. */
import { ends, routeIdOf } from "./Epoll.ts"
import type { Route } from "./Routes.ts"
import { openConnections, reset } from "./TcpEnds.ts"
import { generation } from "./Thread.ts"
import { endFlows } from "./UdpFlows.ts"

interface Ending {
  readonly route: Route
  readonly due: number
}

const endings = new Map<number, Ending>()

export const hasEndings = (): boolean => endings.size > 0

export const endConnections = (route: Route, due: number): void => {
  endings.set(route.id, { route, due })
}

/** Ends what is over its time, and tells of each route of which nothing is left. */
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

/** In one pass, however many routes end at once. */
const resetAll = (routes: ReadonlySet<number>): void => {
  const own = [...ends()]
    .filter((fd) => routes.has(routeIdOf[fd]!))
    .map((fd) => [fd, generation[fd]] as const)
  for (const [fd, then] of own) if (generation[fd] === then) reset(fd)
}
