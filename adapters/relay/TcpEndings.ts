// biome-ignore-all lint/style/noNonNullAssertion: every route below maxRoutes has its place in every table
/** Routes that take no more connections: those they have may go on for the grace time, then they are reset. */
import { ends, generation, routeIdOf } from "./Epoll.ts"
import { openConnections, reset } from "./TcpEnds.ts"

const endings = new Map<number, number>()

export const hasEndings = (): boolean => endings.size > 0

export const endConnections = (route: number, due: number): void => {
  endings.set(route, due)
}

/** Resets what is over its time, and tells of each route whose last connection is gone. */
export const runEndings = (now: number, ended: (route: number) => void): void => {
  const over = new Set<number>()
  for (const [route, due] of endings) if (due <= now && openConnections[route]! > 0) over.add(route)
  if (over.size > 0) resetAll(over)
  for (const route of endings.keys()) {
    if (openConnections[route] !== 0) continue
    endings.delete(route)
    ended(route)
  }
}

/** In one pass, however many routes end at once. */
const resetAll = (routes: ReadonlySet<number>): void => {
  const own = [...ends()]
    .filter((fd) => routes.has(routeIdOf[fd]!))
    .map((fd) => [fd, generation[fd]] as const)
  for (const [fd, then] of own) if (generation[fd] === then) reset(fd)
}
