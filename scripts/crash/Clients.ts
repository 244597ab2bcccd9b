/**
 * Clients that map and unmap at random over the plugin's socket, each one call at a time, all at once, until the
 * plugin dies. Exact ports are private to each client; ranges and ephemeral ports are shared, and small enough to
 * run out.
 */
import { Agent } from "node:http"
import type { Random } from "../../src/testing/Random.ts"
import { request } from "../../test/support/http.ts"
import { injectedTexts } from "./Faults.ts"
import {
  type Binding,
  bindingKey,
  frontendOf,
  keyOf,
  type Ledger,
  labelsOf,
  sharedPort,
  textOf
} from "./Ledger.ts"

export const clientCount = 4
/** The private ports of each client, from `20000 + 100 × client` on. */
const ownPorts = 8
const range = { first: 21_000, last: 21_011 } as const
export const ephemeral = { first: 22_000, last: 22_011 } as const
const mappedAtMost = 14

/** Each client's backends have a port of their own. */
export const backendPort = (client: number) => 80 + client
export const containers = [
  { name: "c1", ipv4: "172.31.0.2", ipv6: "fd66::2" },
  { name: "c2", ipv4: "172.31.0.3", ipv6: "fd66::3" }
] as const

export interface Calls {
  /** Whether each client's next call is its last. */
  stopping: boolean
  answered: number
  unanswered: number
  /** Calls that an injected error failed. */
  failed: number
  /** Calls that were refused without a conflict with an answered mapping. */
  readonly refused: Array<string>
}

/** Works until the plugin stops answering, or until the last call after `stopping` was set. */
export const work = async (
  client: number,
  socket: string,
  random: Random,
  ledger: Ledger,
  calls: Calls
): Promise<void> => {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  const post = (method: string, body: unknown, owner?: string) =>
    request(socket, `/PortMapper.${method}`, JSON.stringify(body), { agent, headers: ownedBy(owner) })

  const mapSome = async () => {
    const asked = randomGroup(client, random, ledger)
    if (asked === undefined) return
    const wanted = { Reqs: asked, Labels: labelsOfAll(asked) }
    const { status, body } = await post("MapPorts", wanted, attachmentOf(asked[0]))
    calls.answered++
    const answer = JSON.parse(body) as MapAnswer
    if (status === 200) ledger.map(answer.PortBindings ?? [])
    else refused([asked], answer)
  }

  const standBy = async (mapped: ReadonlyArray<Binding>) => {
    for (const asked of random.some(standbysOf(mapped, ledger), 1)) {
      const { status, body } = await post("MapPorts", { Reqs: [asked], Labels: {} }, attachmentOf(asked))
      calls.answered++
      if (status === 200) ledger.standbys.set(keyOf(asked), asked)
      else refused([[asked]], JSON.parse(body) as MapAnswer)
    }
  }

  const mapSeveral = async () => {
    const groups = [1, 2].flatMap(() => {
      const asked = randomGroup(client, random, ledger)
      return asked === undefined ? [] : [asked]
    })
    // No two containers may get the same port.
    if (new Set(groups.map(([asked]) => asked && `${asked.Proto} ${asked.FrontendPort}`)).size < 2) return
    const { status, body } = await post("MapGroups", {
      Groups: groups.map((asked) => ({ Reqs: asked, Labels: labelsOfAll(asked) }))
    })
    calls.answered++
    const answer = JSON.parse(body) as { readonly Groups?: ReadonlyArray<MapAnswer>; readonly Err: string }
    if (status === 200) ledger.map((answer.Groups ?? []).flatMap(({ PortBindings }) => PortBindings ?? []))
    else refused(groups, answer)
  }

  /** Requests for an existing mapping are granted as before. */
  const mapAgain = async (mapped: ReadonlyArray<Binding>) => {
    const [binding] = random.some(mapped, 1)
    if (binding === undefined) return
    const asked: Request = { ...binding, FrontendPortEnd: binding.FrontendPort }
    const { status, body } = await post("MapPorts", { Reqs: [asked], Labels: labelsOf(asked) })
    calls.answered++
    if (status !== 200) refused([[asked]], JSON.parse(body) as MapAnswer)
  }

  const refused = countRefusals(ledger, calls)

  const unmapSome = async (bindings: ReadonlyArray<Binding>) => {
    if (bindings.length === 0) return
    ledger.unmapBegins(bindings)
    const { status, body } = await post("UnmapPorts", { PortBindings: bindings, Labels: {} })
    calls.answered++
    if (status === 200) return ledger.unmapped(bindings)
    // Bindings that the error names are mapped as before, and the rest are gone.
    ledger.map(bindings.filter((binding) => body.includes(`unmapping ${unmappedAs(binding)} failed: `)))
    ledger.unmapped(bindings)
    if (isInjected(body)) calls.failed++
    else calls.refused.push(`unmapping ${bindings.map(keyOf)}: ${body}`)
  }

  try {
    while (!calls.stopping) {
      const mapped = mappedFor(client, ledger)
      if (mapped.length >= mappedAtMost || random.chance(0.4))
        await unmapSome(random.some(mapped, 1 + random.below(3)))
      else if (random.chance(0.15)) await mapAgain(mapped)
      else if (random.chance(0.12)) await drainSome(post, random, ledger, calls, mapped)
      else if (random.chance(0.2)) await mapSeveral()
      else if (random.chance(0.3)) await standBy(mapped)
      else await mapSome()
    }
  } catch {
    calls.unanswered++
  } finally {
    agent.destroy()
  }
}

const mappedFor = (client: number, ledger: Ledger): ReadonlyArray<Binding> =>
  [...ledger.answered.values()].filter(({ BackendPort }) => BackendPort === backendPort(client))

/** Of a private port of TCP on all addresses, so that no other caller's mapping is named. */
const drainSome = async (
  post: (method: string, body: unknown) => Promise<{ readonly status: number; readonly body: string }>,
  random: Random,
  ledger: Ledger,
  calls: Calls,
  mapped: ReadonlyArray<Binding>
) => {
  const own = mapped.filter(
    ({ Proto, FrontendIP, FrontendPort }) =>
      Proto === 6 && FrontendPort < range.first && (FrontendIP === "0.0.0.0" || FrontendIP === "::")
  )
  for (const binding of random.some(own, 1)) {
    const key = bindingKey(binding)
    const drained = random.chance(0.6)
    const was = ledger.perhapsDrained.has(key)
    ledger.perhapsDrained.add(key)
    const asked = { Backend: binding.BackendIP, Ports: [`${binding.FrontendPort}`] }
    const { status, body } = await post(drained ? "Drain" : "Undrain", asked)
    calls.answered++
    if (status === 200 || !was) ledger.perhapsDrained.delete(key)
    if (status !== 200) {
      if (isInjected(body)) calls.failed++
      else calls.refused.push(`draining ${textOf(binding)}: ${body}`)
    } else if (drained) ledger.drained.add(key)
    else ledger.drained.delete(key)
  }
}

const labelsOfAll = ([asked]: ReadonlyArray<Request>) => (asked === undefined ? {} : labelsOf(asked))

const ownedBy = (owner: string | undefined) => (owner === undefined ? {} : { "Portmapper-Owner": owner })

const countRefusals =
  (ledger: Ledger, calls: Calls) =>
  (groups: ReadonlyArray<ReadonlyArray<Request>>, { Err }: Pick<MapAnswer, "Err">) => {
    if (isInjected(Err)) calls.failed++
    // What stands by is refused behind a mapping for the Engine: of several groups, or confirmed after a kill.
    else if (
      Err.includes("held by engine") &&
      groups.some(([asked]) => asked && ledger.answered.has(keyOf(asked)))
    )
      return
    else if (!(Err.includes("all ports are allocated") && groups.some((asked) => isFull(asked, ledger))))
      calls.refused.push(`${JSON.stringify(groups)}: ${Err}`)
  }

/** What the other attachment of the same container may ask for: the private ports that this one has. */
const standbysOf = (mapped: ReadonlyArray<Binding>, ledger: Ledger): ReadonlyArray<Request> =>
  mapped
    .filter((one) => one.FrontendPort < range.first && !ledger.standbys.has(keyOf(one)))
    .map((one) => ({ ...one, ...otherBackend(one), FrontendPortEnd: one.FrontendPort }))

/** A client's container is in the networks of both containers of the lab. */
const attachmentOf = (binding: Binding | undefined): string | undefined =>
  binding?.FrontendPort === sharedPort
    ? undefined
    : binding && `cni:client${binding.BackendPort}/${containerOf(binding).name}`

const containerOf = ({ BackendIP }: Pick<Binding, "BackendIP">) => {
  const [c1, c2] = containers
  return BackendIP === c1.ipv4 || BackendIP === c1.ipv6 ? c1 : c2
}

/** The same port of the other container. */
export const otherBackend = ({ BackendIP, BackendPort }: Pick<Binding, "BackendIP" | "BackendPort">) => {
  const [c1, c2] = containers
  const other = containerOf({ BackendIP }) === c1 ? c2 : c1
  return { BackendIP: BackendIP.includes(":") ? other.ipv6 : other.ipv4, BackendPort }
}

/** How an error names a binding: on the shared port with its backend. */
const unmappedAs = (binding: Binding): string => {
  const { FrontendPort, BackendIP, BackendPort } = binding
  if (FrontendPort !== sharedPort) return frontendOf(binding)
  return `${frontendOf(binding)} to ${BackendIP.includes(":") ? `[${BackendIP}]` : BackendIP}:${BackendPort}`
}

const isInjected = (error: string): boolean => injectedTexts.some((text) => error.includes(text))

interface MapAnswer {
  readonly PortBindings?: ReadonlyArray<Binding>
  readonly Err: string
}

export type Request = Binding & { readonly FrontendPortEnd: number }

const randomGroup = (client: number, random: Random, ledger: Ledger): ReadonlyArray<Request> | undefined => {
  const Proto = random.pick([6, 17])
  const container = random.pick(containers)
  const shape = random.pick([["0.0.0.0"], ["::"], ["0.0.0.0", "::"], ["10.99.0.1"]])
  const entries = (first: number, last = first, hosts = shape) =>
    hosts.map((FrontendIP) => ({
      Proto,
      FrontendIP,
      FrontendPort: first,
      FrontendPortEnd: last,
      BackendIP: FrontendIP === "::" ? container.ipv6 : container.ipv4,
      BackendPort: backendPort(client)
    }))
  if (random.chance(0.15)) {
    const asked = entries(sharedPort, sharedPort, random.pick([["0.0.0.0"], ["::"], ["0.0.0.0", "::"]]))
    return asked.some((one) => ledger.answered.has(bindingKey(one)) || ledger.leaving.has(bindingKey(one)))
      ? undefined
      : asked
  }
  if (random.chance(0.2)) return entries(range.first, range.last)
  if (random.chance(0.2)) return entries(0)
  const port = 20_000 + 100 * client + random.below(ownPorts)
  const taken = [...ledger.answered.values(), ...ledger.leaving.values()].some(
    (binding) => binding.Proto === Proto && binding.FrontendPort === port
  )
  return taken ? undefined : entries(port)
}

/**
 * Whether answered mappings, and those of other clients' calls in flight, may take all the requested ports. A call
 * in flight takes two ports at most.
 */
const isFull = ([asked]: ReadonlyArray<Request>, ledger: Ledger): boolean => {
  if (asked === undefined) return false
  const { first, last } = asked.FrontendPort === 0 ? ephemeral : range
  const ports = new Set(
    [...ledger.answered.values(), ...ledger.leaving.values()]
      .filter(({ Proto, FrontendPort: port }) => Proto === asked.Proto && port >= first && port <= last)
      .map(({ FrontendPort }) => FrontendPort)
  )
  return ports.size + 2 * clientCount >= last - first + 1
}
