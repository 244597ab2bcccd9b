/**
 * `Conntrack` through netlink: finds flows by dumps that the kernel filters, and deletes them by tuple and id, so
 * that it deletes exactly the flow that it looked at.
 */
import { Duration, Effect, Layer, Result } from "effect"
import {
  Conntrack,
  ConntrackError,
  type FlowBackend,
  type FlowFrontend
} from "../../../src/firewall/Conntrack.ts"
import { Firewall, type FirewallError, type RefusedFlow } from "../../../src/firewall/Firewall.ts"
import { fromOctets, isUnspecified } from "../../../src/protocol/Address.ts"
import { frontendText } from "../../../src/protocol/PortBinding.ts"
import { protocolNumber, protocolOfNumber } from "../../../src/protocol/Protocol.ts"
import { readText } from "../../node/FileText.ts"
import * as C from "../Libc.ts"
import { type IsLocal, readLocal } from "../netlink/LocalAddresses.ts"
import { NETLINK_NETFILTER, NETLINK_ROUTE, type Request, scopedNetlink } from "../netlink/Netlink.ts"
import { openDump } from "../netlink/NetlinkDump.ts"
import {
  type Flow,
  type FlowName,
  flowFamily,
  flowsAnsweredBy,
  flowsTo,
  NFNL_SUBSYS_CTNETLINK,
  nameOf,
  readFlow,
  writeDelete
} from "./ConntrackMessages.ts"
import { portKey, portKeyOfFlow, sameOctets, staleAmong } from "./FlowFrontends.ts"

/** The delay from a change to the sweep for flows from just before it; then the interval between sweeps. */
const sweepAfter = Duration.millis(200)
const sweepInterval = Duration.seconds(1)
/** Deletions per send. */
const longestSeries = 1000

export const layer: Layer.Layer<Conntrack, ConntrackError, Firewall> = Layer.effect(
  Conntrack,
  Effect.gen(function* () {
    const libc = C.libc()
    const firewall = yield* Firewall
    const netlink = yield* scopedNetlink(libc, NETLINK_NETFILTER)
    const routes = yield* scopedNetlink(libc, NETLINK_ROUTE)
    const dump = yield* openDump(libc, NETLINK_NETFILTER)
    const scope = yield* Effect.scope

    /** The frontends whose stale connections are still to be deleted, as the last change left each. */
    let waiting = new Map<string, FlowFrontend>()
    let sweeping = false
    let missing = false

    /** This host's addresses, of the families in which some frontend uses the unspecified address. */
    const localFor = (frontends: ReadonlyArray<FlowFrontend>) =>
      Result.gen(function* () {
        const families = new Set(
          frontends.filter(({ host }) => isUnspecified(host)).map(({ host }) => host.family)
        )
        const four = families.has(4) ? yield* readLocal(routes, 4) : noneLocal
        const six = families.has(6) ? yield* readLocal(routes, 6) : noneLocal
        return (address: Uint8Array) => (address.length === 4 ? four : six)(address)
      })

    /** `changed` returns the ports (`portKey`) that this leaves to a later call. */
    const forget = Effect.fnUntraced(function* (
      frontends: ReadonlyArray<FlowFrontend>,
      changed: () => ReadonlySet<number> = () => new Set()
    ) {
      const staleness = staleAmong(frontends, yield* Effect.fromResult(localFor(frontends)))
      const stale: Array<readonly [port: number, FlowName]> = []
      const refused: Array<RefusedFlow> = []
      for (const request of requestsFor(frontends))
        yield* dump(request, (message) => {
          const flow = readFlow(message)
          const found = flow === undefined ? undefined : staleness(flow)
          if (flow === undefined || found === undefined) return
          stale.push([portKeyOfFlow(flow), nameOf(message)])
          if (found === "refused") refused.push(...refusedFlow(flow))
        })
      // Before the deletion: otherwise the backend's next packet could start a new flow in between.
      if (refused.length > 0) yield* firewall.refuse(refused)
      for (let next = 0; next < stale.length; next += longestSeries) {
        const left = changed()
        const series = stale.slice(next, next + longestSeries).filter(([port]) => !left.has(port))
        yield* remove(series.map(([, flow]) => flow))
      }
    })

    const remove = (flows: ReadonlyArray<FlowName>): Effect.Effect<void, C.Errno> => {
      const refused = netlink.series(NFNL_SUBSYS_CTNETLINK, (series) => {
        for (const flow of flows) writeDelete(series, flow)
      })
      if (Result.isFailure(refused)) return Effect.fail(refused.failure)
      // A flow that ended meanwhile needs no deletion.
      const worst = refused.success.find(({ errno }) => errno !== C.ENOENT)
      return worst === undefined ? Effect.void : Effect.fail(libc.errno("delete", -worst.errno))
    }

    /**
     * The kernel tracks no flows where its table can't be reached: logged once, and no reason to refuse a mapping.
     */
    const orMissing = (effect: Effect.Effect<void, C.Errno | FirewallError>) =>
      Effect.catch(effect, (error) => {
        if (error._tag !== "Errno" || (error.errno !== C.EINVAL && error.errno !== C.EOPNOTSUPP))
          return Effect.fail(new ConntrackError({ doing: "flushing", detail: error.message }))
        missing = true
        return Effect.logWarning(
          `flows that began before a mapping continue unchanged: the kernel lacks nf_conntrack_netlink (${error.message})`
        )
      })

    const sweep = Effect.gen(function* () {
      yield* Effect.sleep(sweepAfter)
      while (waiting.size > 0) {
        const frontends = [...waiting.values()]
        waiting = new Map()
        if (noFlows()) continue
        const changed = () => new Set([...waiting.values()].map(portKey))
        yield* Effect.catch(orMissing(forget(frontends, changed)), (error) =>
          Effect.logWarning(error.message)
        )
        yield* Effect.sleep(sweepInterval)
      }
      sweeping = false
    })

    const sweepLater = (frontends: ReadonlyArray<FlowFrontend>): Effect.Effect<void> =>
      Effect.suspend(() => {
        for (const frontend of frontends) waiting.set(frontendText(frontend), frontend)
        if (sweeping || waiting.size === 0) return Effect.void
        sweeping = true
        return Effect.asVoid(Effect.forkIn(sweep, scope))
      })

    /** How many flows lead to each of these backends. */
    const count = Effect.fnUntraced(function* (backends: ReadonlyArray<FlowBackend>) {
      const open = new Map<string, Map<number, number>>()
      const byAddress = Map.groupBy(backends, addressKey)
      for (const [key, [first]] of byAddress) {
        if (first === undefined) continue
        const protocol = protocolNumber[first.protocol]
        const { family, octets } = first.backend.address
        const byPort = new Map<number, number>()
        open.set(key, byPort)
        yield* dump(flowsAnsweredBy(flowFamily[family], protocol, octets), (message) => {
          const flow = readFlow(message)
          if (flow === undefined || flow.isClosed || flow.reply.protocol !== protocol) return
          const { source, sourcePort } = flow.reply
          if (sameOctets(source, octets)) byPort.set(sourcePort, (byPort.get(sourcePort) ?? 0) + 1)
        })
      }
      return backends.map((each) => open.get(addressKey(each))?.get(each.backend.port) ?? 0)
    })

    return Conntrack.of({
      open: (backends) =>
        Effect.mapError(
          count(backends),
          ({ message }) => new ConntrackError({ doing: "counting", detail: message })
        ),
      flush: (frontends) =>
        Effect.suspend(() => {
          if (missing) return Effect.void
          const now = frontends.filter(isForgottenNow)
          const later = frontends.filter((frontend) => !isForgottenNow(frontend))
          return now.length === 0 || noFlows()
            ? sweepLater(later)
            : Effect.andThen(orMissing(forget(now)), sweepLater(later))
        })
    })
  }).pipe(Effect.mapError((errno) => new ConntrackError({ doing: "flushing", detail: errno.message })))
)

const addressKey = ({ protocol, backend }: FlowBackend): string => `${protocol} ${backend.address.key}`

/** The tuple of what the backend sends; none for a protocol that can't be published. */
const refusedFlow = ({ reply }: Flow): ReadonlyArray<RefusedFlow> => {
  const protocol = protocolOfNumber(reply.protocol)
  if (protocol === undefined) return []
  const backend = { address: fromOctets(reply.source.slice()), port: reply.sourcePort }
  const client = { address: fromOctets(reply.destination.slice()), port: reply.destinationPort }
  return [{ protocol, backend, client }]
}

const noneLocal: IsLocal = () => false

const isForgottenNow = ({ protocol, narrowed }: FlowFrontend): boolean => protocol === "udp" || narrowed

/** One dump for each family and protocol, filtered as narrowly as the targets allow. */
const requestsFor = (frontends: ReadonlyArray<FlowFrontend>): ReadonlyArray<Request> =>
  [...Map.groupBy(frontends, ({ host, protocol }) => `${host.family} ${protocol}`).values()].flatMap(
    (own) => {
      const [first] = own
      if (first === undefined) return []
      const port = own.every((other) => other.port === first.port) ? first.port : undefined
      const alone = own.every((other) => other.host.key === first.host.key) && !isUnspecified(first.host)
      return [
        flowsTo(
          flowFamily[first.host.family],
          protocolNumber[first.protocol],
          port,
          alone ? first.host.octets : undefined
        )
      ]
    }
  )

/** Skips the search on a host without flows; searches if the number of flows is unknown. */
const noFlows = (): boolean => readText("/proc/sys/net/netfilter/nf_conntrack_count")?.trim() === "0"
