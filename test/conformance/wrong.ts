/** Plugins with one fault each: ours, with a proxy between it and its caller. */
import { Effect, Semaphore } from "effect"
import type { Driver } from "../../src/protocol/Driver.ts"
import type { Wire, WireAnswer, WireMapRequest, WireRequest } from "../../src/testing/index.ts"
import { answer, wireOf } from "./plugin.ts"

export interface Wrong {
  readonly fault: string
  /** The one check that reports it. */
  readonly named: string
  readonly wire: (driver: Driver["Service"]) => Wire
}

const isMap = ({ path }: WireRequest): boolean => path === "/PortMapper.MapPorts"
const isUnmap = ({ path }: WireRequest): boolean => path === "/PortMapper.UnmapPorts"

/** Changes the answer. */
const answering =
  (change: (answer: WireAnswer, request: WireRequest) => WireAnswer) =>
  (driver: Driver["Service"]): Wire => {
    const { send } = wireOf(driver)
    return { send: (request) => Effect.map(send(request), (right) => change(right, request)) }
  }

/** Sends another request where the right plugin refused the first. */
const retrying = (again: (request: WireRequest) => WireRequest | undefined) =>
  handling((request, send) =>
    Effect.flatMap(send(request), (right) => {
      const next = right.status === 200 ? undefined : again(request)
      return next === undefined ? Effect.succeed(right) : send(next)
    })
  )

function handling(handle: (request: WireRequest, send: Wire["send"]) => ReturnType<Wire["send"]>) {
  return (driver: Driver["Service"]): Wire => {
    const { send } = wireOf(driver)
    return { send: (request) => handle(request, send) }
  }
}

/** The request, if it has entries. */
const read = (text: string): WireMapRequest | undefined => {
  try {
    const value = JSON.parse(text) as WireMapRequest
    return Array.isArray(value.Reqs) ? value : undefined
  } catch {
    return undefined
  }
}

const readBindings = (text: string) =>
  (
    JSON.parse(text) as {
      PortBindings?: ReadonlyArray<{ FrontendPort: number; FrontendIP: string; BackendIP: string }>
    }
  ).PortBindings ?? []

const write = (request: WireRequest, value: unknown): WireRequest => ({
  ...request,
  body: JSON.stringify(value)
})

const replacing = (from: string, to: string) =>
  answering((right) => (right.status === 200 ? right : { ...right, body: right.body.replaceAll(from, to) }))

const bindingsWith = (change: (binding: Record<string, unknown>, index: number) => Record<string, unknown>) =>
  answering((right, request) => {
    if (!isMap(request) || right.status !== 200) return right
    return answer(200, {
      PortBindings: readBindings(right.body).map((each, index) => change({ ...each }, index)),
      Err: ""
    })
  })

export const wrong: ReadonlyArray<Wrong> = [
  {
    fault: "gives the addresses of a group different ports",
    named: "group-port",
    wire: handling((request, send) => {
      const group = isMap(request) ? read(request.body) : undefined
      const [first] = group?.Reqs ?? []
      if (
        first === undefined ||
        (first.FrontendPort !== 0 && first.FrontendPort === first.FrontendPortEnd) ||
        group?.Reqs?.length !== 2
      )
        return send(request)
      return Effect.gen(function* () {
        const bindings = []
        // Each entry in its own request, with one of another client in between.
        for (const [index, Reqs] of [[group.Reqs?.[0]], [group.Reqs?.[1]]].entries()) {
          const skewed = Reqs.map((req) =>
            index === 1 && req?.FrontendPort !== 0 ? { ...req, FrontendPort: req?.FrontendPortEnd } : req
          )
          bindings.push(...readBindings((yield* send(write(request, { Reqs: skewed, Labels: {} }))).body))
          if (index === 0 && first.FrontendPort === 0)
            yield* send(
              write(request, { Reqs: [{ ...group.Reqs?.[1], BackendIP: "2001:db8::ffff" }], Labels: {} })
            )
        }
        return answer(200, { PortBindings: bindings, Err: "" })
      })
    })
  },
  {
    fault: "answers 200 to a group that it refuses",
    named: "failure-status",
    wire: answering((right, request) =>
      isMap(request) && right.status === 500 ? { ...right, status: 200 } : right
    )
  },
  {
    fault: "gives another port for an exact one that is taken",
    named: "exact-port",
    wire: retrying((request) => {
      const group = isMap(request) ? read(request.body) : undefined
      const [only] = group?.Reqs ?? []
      if (
        only === undefined ||
        group?.Reqs?.length !== 1 ||
        only.FrontendPort !== only.FrontendPortEnd ||
        only.FrontendPort > 65535
      )
        return undefined
      return write(request, { ...group, Reqs: [{ ...only, FrontendPort: 0, FrontendPortEnd: 0 }] })
    })
  },
  {
    fault: "leaves the first entries of a group that fails",
    named: "failed-group",
    wire: handling((request, send) =>
      Effect.gen(function* () {
        const right = yield* send(request)
        const group = isMap(request) && right.status === 500 ? read(request.body) : undefined
        const [first, second] = group?.Reqs ?? []
        if (first !== undefined && second !== undefined)
          yield* send(write(request, { Reqs: [first], Labels: {} }))
        return right
      })
    )
  },
  {
    fault: "refuses what is mapped already",
    named: "remap",
    wire: (driver) => {
      const mapped = new Set<string>()
      const { send } = wireOf(driver)
      return {
        send: (request) => {
          if (isUnmap(request))
            for (const key of [...mapped]) if (request.body.includes(key)) mapped.delete(key)
          const [only] = (isMap(request) ? read(request.body) : undefined)?.Reqs ?? []
          const key =
            only === undefined
              ? ""
              : `{"Proto":${only.Proto},"BackendIP":"${only.BackendIP}","BackendPort":80,"FrontendIP":"${only.FrontendIP}","FrontendPort":${only.FrontendPort},`
          if (only !== undefined && mapped.has(key))
            return Effect.succeed(
              answer(500, {
                Err: `bind for ${only.FrontendIP}:${only.FrontendPort} failed: port is already allocated`
              })
            )
          return Effect.map(send(request), (right) => {
            if (only !== undefined && only.FrontendPort !== 0 && right.status === 200) mapped.add(key)
            return right
          })
        }
      }
    }
  },
  {
    fault: "fails to unmap what is not mapped",
    named: "unmap-unmapped",
    wire: (driver) =>
      handling((request, send) =>
        Effect.gen(function* () {
          if (!isUnmap(request)) return yield* send(request)
          const before = (yield* Effect.orDie(driver.listPorts ?? Effect.succeed([]))).length
          const right = yield* send(request)
          const after = (yield* Effect.orDie(driver.listPorts ?? Effect.succeed([]))).length
          return before === after && right.status === 200 ? answer(500, { Err: "no such mapping" }) : right
        })
      )(driver)
  },
  {
    fault: "answers 200 to an UnmapPorts that it can't do",
    named: "unmap-failure-status",
    wire: answering((right, request) => (isUnmap(request) ? { ...right, status: 200 } : right))
  },
  {
    fault: "refuses a published port in words of its own",
    named: "conflict-text",
    wire: replacing("port is already allocated", "someone has it")
  },
  {
    fault: "refuses an exhausted range in words of its own",
    named: "range-exhausted-text",
    wire: replacing("all ports are allocated", "none left")
  },
  {
    fault: "gives any port where a range was asked for",
    named: "range",
    wire: handling((request, send) => {
      const group = isMap(request) ? read(request.body) : undefined
      const ranged = (group?.Reqs ?? []).some(
        ({ FrontendPort, FrontendPortEnd }) => FrontendPort < FrontendPortEnd
      )
      if (!ranged) return send(request)
      const Reqs = group?.Reqs?.map((req) => ({ ...req, FrontendPort: 0, FrontendPortEnd: 0 }))
      return send(write(request, { ...group, Reqs }))
    })
  },
  {
    fault: "refuses a request with an empty Host",
    named: "empty-host",
    wire: handling((request, send) =>
      request.headers.some(([name, value]) => name === "Host" && value === "")
        ? Effect.succeed({ status: 400, headers: {}, body: "400 Bad Request: missing required Host header" })
        : send(request)
    )
  },
  {
    fault: "answers a frontend that was not given as 0.0.0.0",
    named: "empty-frontend",
    wire: bindingsWith((binding) =>
      binding["FrontendIP"] === "" ? { ...binding, FrontendIP: "0.0.0.0" } : binding
    )
  },
  {
    fault: "lets two claim one port at once",
    named: "at-once-exact",
    wire: (driver) => {
      const { send } = wireOf(driver)
      const turn = Semaphore.makeUnsafe(1)
      let under = 0
      return {
        send: (request) => {
          const [only] = (isMap(request) ? read(request.body) : undefined)?.Reqs ?? []
          if (only === undefined || only.FrontendPort === 0) return send(request)
          under++
          const raced = Effect.gen(function* () {
            yield* Effect.sleep("5 millis")
            const alone = under === 1
            const right = yield* turn.withPermits(1)(send(request))
            if (alone || right.status === 200) return right
            const { FrontendPortEnd: _, ...binding } = only
            return answer(200, {
              PortBindings: [
                { ...binding, DiscardReq: false, AllowForwarding: true, NAT: null, Error: null }
              ],
              Err: ""
            })
          })
          return Effect.ensuring(
            raced,
            Effect.sync(() => under--)
          )
        }
      }
    }
  },
  {
    fault: "says it unmapped and keeps the port",
    named: "unmap",
    wire: handling((request, send) =>
      isUnmap(request) && request.body.endsWith("}\n") ? Effect.succeed(answer(200, {})) : send(request)
    )
  },
  {
    fault: "takes entries that differ in port, each as it asks",
    named: "differing-ports",
    wire: handling((request, send) => {
      const reqs = (isMap(request) ? read(request.body) : undefined)?.Reqs ?? []
      if (reqs.length < 2 || reqs.every((req) => req.FrontendPort === reqs[0]?.FrontendPort))
        return send(request)
      return Effect.map(
        Effect.forEach(reqs, (req) => send(write(request, { Reqs: [req], Labels: {} }))),
        (each) => answer(200, { PortBindings: each.flatMap(({ body }) => readBindings(body)), Err: "" })
      )
    })
  }
]
