/**
 * A thread of the relay: blocks in epoll_wait(2) and never returns to Node's loop. Commands come by a message port,
 * which it reads synchronously before it handles events; an eventfd ends the wait if a command can't wait for an
 * event. It exits at a command; its owner closes the descriptors that are left.
 */
import { readFileSync } from "node:fs"
import { receiveMessageOnPort } from "node:worker_threads"
import * as S from "../../linux/Syscalls.ts"
import { EPOLLIN } from "../EpollEvent.ts"
import { type Command, kindOf, type Serving, turnOf } from "../ThreadMessages.ts"
import * as Budget from "./Budget.ts"
import { endConnections, endRefused, hasEndings, runEndings } from "./Endings.ts"
import * as Epoll from "./Epoll.ts"
import { setLimits } from "./Limiting.ts"
import { routesChanged } from "./Loops.ts"
import { memory } from "./Memory.ts"
import * as Routes from "./RouteTable.ts"
import * as Ends from "./TcpConnections.ts"
import * as Listeners from "./TcpListeners.ts"
import { kind, port, report, sendReports, settings, turn, wake } from "./ThreadData.ts"
import * as Flows from "./UdpFlows.ts"
import * as Forward from "./UdpForward.ts"
import * as Clients from "./WaitingClients.ts"
import * as Packets from "./WaitingPackets.ts"

const tickMillis = Flows.tickMillis
/** The wait with no deadline pending. Bounded, since only an event ends a native call. */
const restMillis = 10_000
/**
 * A thread is busy if it wanted a processor for more than this share of this time, and for traffic rather than
 * commands: every other thread would have to handle the same commands.
 */
const busyMillis = 500
const busyShare = 0.5

let running = true
let now = performance.now()
let lastTick = now
let lastLook = now
/** Events since the last look: those of clients and backends, and commands. */
let traffic = 0
let commands = 0

const counter = memory(8)
kind[wake] = kindOf.wake
Epoll.watch(wake, EPOLLIN)

const run = (): void => {
  while (running) {
    const millis = timeout()
    Atomics.store(turn, turnOf.rests, 1)
    const events = Epoll.wait(millis)
    Atomics.store(turn, turnOf.rests, 0)
    now = performance.now()
    Flows.setTime(now)
    readCommands()
    for (let index = 0; index < events; index++) {
      const fd = Epoll.eventDescriptor(index)
      if (fd >= 0) dispatch(fd, Epoll.eventMask(index))
    }
    if (Ends.hasQueued()) Ends.nextTurn()
    if (Clients.hasQueued()) Listeners.serveQueued(now)
    if (Epoll.hasPaused() && Budget.hasGivenBack()) Listeners.resume(now)
    if (now - lastTick >= tickMillis) onTick()
    sendReports()
  }
}

const dispatch = (fd: number, events: number) => {
  if (fd === wake) return woken()
  traffic++
  switch (kind[fd]) {
    case kindOf.end:
      return Ends.onEnd(fd, events)
    case kindOf.listener:
      return Listeners.onListener(fd, now)
    case kindOf.front:
      return Forward.onFront(fd, now)
    case kindOf.flow:
      return Forward.onFlow(fd)
    case kindOf.waiting:
      return Clients.onWaiting(fd)
  }
}

const timeout = (): number => {
  if (Ends.hasQueued()) return 0
  if (Clients.hasQueued()) return Listeners.turnMillis
  const timed =
    Listeners.hasTimers() || Flows.hasFlows() || Packets.hasWaiting() || hasEndings() || Budget.isLacking()
  return timed ? tickMillis : restMillis
}

const onTick = (): void => {
  lastTick = now
  Listeners.runTimers(now)
  Flows.endIdle()
  if (Packets.hasWaiting()) Forward.refuseDue(now)
  runEndings(now, reportEnded)
  Listeners.resume(now)
  if (!Epoll.hasPaused()) Budget.endLack(now)
  if (now - lastLook >= busyMillis) look()
}

const look = (): void => {
  const until = processorMillis()
  const forTraffic = (until - wanted) * (traffic / Math.max(traffic + commands, 1))
  if (forTraffic > (now - lastLook) * busyShare) report({ _tag: "Busy" })
  wanted = until
  lastLook = now
  traffic = 0
  commands = 0
}

/**
 * How long this thread has run on a processor or waited for one, if the kernel reports it; else only how long it
 * has run.
 */
const processorMillis = (): number => {
  try {
    const [ran = 0, waited = 0] = readFileSync("/proc/thread-self/schedstat", "latin1").split(" ").map(Number)
    return (ran + waited) / 1e6
  } catch {
    const { user, system } = process.threadCpuUsage()
    return (user + system) / 1000
  }
}
let wanted = processorMillis()

/** The owner posts commands before it wakes the thread: so the thread clears the wake-up first, then reads. */
const woken = (): void => {
  S.read(wake, counter.address, 8)
  readCommands()
}

/** Reads every message that was there when it began. */
const readCommands = (): void => {
  const sent = Atomics.load(turn, turnOf.sent)
  if (sent === Atomics.load(turn, turnOf.read)) return
  commands++
  let number = 0
  for (let next = receiveMessageOnPort(port); next !== undefined; next = receiveMessageOnPort(port))
    for (const command of next.message as ReadonlyArray<Command>) number = obey(command)
  Atomics.store(turn, turnOf.read, sent)
  report({ _tag: "Done", number })
}

/** Returns the number of the command. */
const obey = (command: Command): number => {
  switch (command._tag) {
    case "Serve":
      command.servings.forEach(serve)
      if (Clients.hasWaiting() || Packets.hasWaiting()) serveWaiting(command.servings)
      return command.number
    case "Stop":
      stop(command.id, command.graceMillis)
      return command.number
    case "Drain":
      drain(command.graceMillis)
      return command.number
    case "Exit":
      running = false
      return 0
  }
}

const serve = (serving: Serving) => {
  const replaces = Routes.routeById(serving.id) !== undefined
  const route = Routes.putRoute(serving)
  setLimits(route, serving.limits)
  routesChanged(now)
  if (replaces && route.allow !== undefined) endRefused(route)
  if (serving.protocol === "tcp") kind[serving.fd] = kindOf.listener
  else Forward.front(serving.fd, route)
}

/** Once all routes of a service have their new slots. Clients of a route that lets none wait are refused. */
const serveWaiting = (servings: ReadonlyArray<Serving>) => {
  for (const { id, fd, protocol, isIdle, waitMillis } of servings) {
    if (isIdle && waitMillis > 0) continue
    if (protocol === "udp") Forward.sendWaiting(fd, now)
    else if (!isIdle) Listeners.serveWaiting(fd, now)
    else Clients.refuseAllOf(id)
  }
}

const drain = (graceMillis: number) => {
  // No other thread can have them.
  Clients.refuseAll()
  for (const route of Routes.allRoutes()) {
    // Its owner waits for the answer, so the number still belongs to this socket.
    Epoll.unwatch(route.fd)
    Epoll.forgetReserved(route.fd)
    endConnections(
      route,
      now + (route.flows === undefined ? graceMillis : Math.min(graceMillis, settings.answerMillis))
    )
  }
  runEndings(now, reportEnded)
}

const reportEnded = (id: number) => report({ _tag: "Ended", id })

const stop = (id: number, graceMillis: number) => {
  const route = Routes.routeById(id)
  if (route === undefined) return report({ _tag: "Ended", id })
  Flows.endFlows(route)
  const isLast = Routes.removeRoute(route)
  if (isLast) Epoll.forgetReserved(route.fd)
  if (isLast && Packets.hasWaiting()) Packets.dropAllOf(route.fd)
  if (Clients.hasWaiting()) Listeners.moveWaiting(route)
  setLimits(route, undefined)
  endConnections(route, now + graceMillis)
  runEndings(now, reportEnded)
}

run()
port.close()
