/**
 * Clients that map and unmap at random over the plugin's socket, each one call at a time, all at once, until the
 * plugin dies. Exact ports are private to each client; ranges and ephemeral ports are shared, and small enough to
 * run out.
 */
import { Agent } from "node:http"
import { request } from "../../test/support/http.ts"
import { injectedTexts } from "./Faults.ts"
import { type Binding, bindingKey, frontendOf, keyOf, type Ledger, labelsOf, sharedPort } from "./Ledger.ts"
import type { Random } from "./Random.ts"

export const clientCount = 4
/** The private ports of each client, from `20000 + 100 × client` on. */
const ownPorts = 8
export const range = { first: 21_000, last: 21_011 } as const
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
  const post = (method: string, body: unknown) =>
    request(socket, `/PortMapper.${method}`, JSON.stringify(body), { agent })
  const mine = () =>
    [...ledger.answered.values()].filter(({ BackendPort }) => BackendPort === backendPort(client))

  const mapSome = async () => {
    const asked = randomGroup(client, random, ledger)
    if (asked === undefined) return
    const { status, body } = await post("MapPorts", { Reqs: asked, Labels: labelsOfAll(asked) })
    calls.answered++
    const answer = JSON.parse(body) as MapAnswer
    if (status === 200) ledger.map(answer.PortBindings ?? [])
    else refused([asked], answer)
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

  const refused = (groups: ReadonlyArray<ReadonlyArray<Request>>, { Err }: Pick<MapAnswer, "Err">) => {
    if (isInjected(Err)) calls.failed++
    else if (!(Err.includes("all ports are allocated") && groups.some((asked) => isFull(asked, ledger))))
      calls.refused.push(`${JSON.stringify(groups)}: ${Err}`)
  }

  const unmapSome = async (bindings: ReadonlyArray<Binding>) => {
    if (bindings.length === 0) return
    ledger.unmapBegins(bindings)
    const { status, body } = await post("UnmapPorts", { PortBindings: bindings, Labels: {} })
    calls.answered++
    if (status === 200) return ledger.unmapped(bindings)
    // Bindings that the error names are mapped as before, and the rest are gone.
    ledger.map(bindings.filter((binding) => body.includes(`unmapping ${frontendOf(binding)} failed: `)))
    ledger.unmapped(bindings)
    if (isInjected(body)) calls.failed++
    else calls.refused.push(`unmapping ${bindings.map(keyOf)}: ${body}`)
  }

  try {
    while (!calls.stopping) {
      const mapped = mine()
      const crowded = mapped.length >= mappedAtMost
      if (crowded || random.chance(0.4)) await unmapSome(random.some(mapped, 1 + random.below(3)))
      else if (random.chance(0.15)) await mapAgain(mapped)
      else if (random.chance(0.2)) await mapSeveral()
      else await mapSome()
    }
  } catch {
    calls.unanswered++
  } finally {
    agent.destroy()
  }
}

const labelsOfAll = ([asked]: ReadonlyArray<Request>) => (asked === undefined ? {} : labelsOf(asked))

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
