/**
 * The transports behind a table of requests: how to send one, and what each can't express. A new one takes one line in
 * `transports`.
 */
import * as Fs from "node:fs"
import * as Net from "node:net"
import * as Os from "node:os"
import * as Path from "node:path"
import { afterAll } from "@effect/vitest"
import { Cause, Context, Effect, Exit, Layer, Logger, Option, Result, type Scope } from "effect"
import { execute } from "../../adapters/cni/execute.ts"
import { executeHandler, executePath } from "../../adapters/cni/Served.ts"
import { serveTcp } from "../../adapters/docker/PluginTcp.ts"
import { toWebHandler } from "../../adapters/docker/WebHandler.ts"
import { startWatch } from "../../adapters/engine/Watch.ts"
import { WatchRecord } from "../../adapters/engine/WatchRecord.ts"
import * as InMemory from "../../adapters/memory/InMemory.ts"
import { InterfaceAddresses } from "../../src/ports/InterfaceAddresses.ts"
import { CurrentOwner, Driver } from "../../src/protocol/Driver.ts"
import { JsonObject, type JsonValue, parse } from "../../src/protocol/GoJson.ts"
import { failureOf, Method } from "../../src/protocol/Operations.ts"
import { type Issue, RequestError } from "../../src/protocol/RequestError.ts"
import * as Memory from "../engine/MemoryEngine.ts"
import { MemoryEngine } from "../engine/MemoryEngine.ts"
import { lacking, needsText } from "../lab/Capabilities.ts"
import { type Certificates, makeCertificates } from "../support/certificates.ts"
import { cniByFront, configText, pathOf } from "../support/cni.ts"
import { send } from "../support/http.ts"
import { openSession } from "../support/session.ts"
import { socketFor } from "../support/socket.ts"
import { clientTls, requestTcp } from "../support/tcp.ts"
import type { Row, Told } from "./table.ts"

export interface Asked {
  readonly method: string
  readonly body: Buffer
  readonly owner: string | undefined
}

export interface Transport {
  readonly name: string
  /** Ready for requests, with the driver of the fiber that opens it. */
  readonly open: Effect.Effect<(asked: Asked) => Effect.Effect<Told>, never, Driver | Scope.Scope>
  /** Why a row can't be sent here. */
  readonly cannot: (row: Row) => string | undefined
}

const noCurl = lacking(["curl"]).length === 0 ? undefined : needsText(["curl"])

export const transports: ReadonlyArray<Transport> = [
  { name: "Unix socket", open: Effect.suspend(() => openSocket), cannot: () => undefined },
  { name: "TCP with TLS", open: Effect.suspend(() => openTls), cannot: () => undefined },
  { name: "stdio", open: Effect.suspend(() => openStdio), cannot: (row) => brokenEnvelope(row) },
  { name: "fetch handler", open: Effect.suspend(() => openFetch), cannot: () => undefined },
  { name: "memory, text", open: Effect.suspend(() => openText), cannot: (row) => notACall(row) },
  {
    name: "memory, values",
    open: Effect.suspend(() => openValue),
    cannot: (row) => notACall(row) ?? notAValue(row)
  },
  { name: "CNI", open: Effect.suspend(() => openCni), cannot: (row) => notPublished(row) },
  {
    name: "CNI, handed over",
    open: Effect.suspend(() => openCniFront),
    cannot: (row) => notPublished(row) ?? noCurl
  },
  { name: "labels", open: Effect.suspend(() => openLabels), cannot: (row) => notPublished(row) }
]

const openSocket = Effect.gen(function* () {
  const socketPath = yield* socketFor(yield* Driver, { owner: "default" })
  return ({ method, body, owner }: Asked) =>
    Effect.promise(async () => {
      const options = { socketPath, path: `/${method}`, method: "POST", headers: headersOf(owner) }
      const answer = await send(options, body)
      return toldByHttp(answer.status, answer.body)
    })
})

const openTls = Effect.gen(function* () {
  const { ca, client, server } = certificates()
  const files = { certFile: server.cert, keyFile: server.key, caFile: ca.cert }
  const { address, port } = yield* Effect.orDie(
    serveTcp({ host: "127.0.0.1", port: 0, tls: files, owner: "default" })
  )
  const tls = clientTls(ca, client)
  return ({ method, body, owner }: Asked) =>
    Effect.promise(async () => {
      const headers = headersOf(owner)
      const answer = await requestTcp({ host: address, port, path: `/${method}`, body, headers, tls })
      return toldByHttp(answer.status, answer.body)
    })
})

/** Made for the first row that needs them, and removed after the last test. */
const certificates = (): Certificates => {
  made ??= makeCertificates(folder)
  return made
}
let made: Certificates | undefined
const folder = Fs.mkdtempSync(Path.join(Os.tmpdir(), "portmapper-tls-"))
afterAll(() => Fs.rmSync(folder, { recursive: true, force: true }))

const openFetch = Effect.gen(function* () {
  const handler = toWebHandler(yield* Driver, { owner: "default" })
  yield* Effect.addFinalizer(() => Effect.promise(handler.dispose))
  return ({ method, body, owner }: Asked) =>
    Effect.promise(async () => {
      const request = new Request(`http://plugin.example/${method}`, {
        method: "POST",
        headers: headersOf(owner),
        body: new Uint8Array(body)
      })
      const response = await handler(request)
      return toldByHttp(response.status, await response.text())
    })
})

const openStdio = Effect.gen(function* () {
  const session = yield* openSession
  return ({ method, body, owner }: Asked) =>
    Effect.gen(function* () {
      const params = body.toString("latin1").trim()
      const empty = /^\{\s*\}$/.test(params)
      const named = owner === undefined ? "" : `"Owner":${JSON.stringify(owner)}${empty ? "" : ","}`
      const text = params.startsWith("{")
        ? `,"params":{${named}${params.slice(1)}`
        : params === ""
          ? ""
          : `,"params":[${params}]`
      session.input.write(
        Buffer.from(`{"jsonrpc":"2.0","id":1,"method":${JSON.stringify(method)}${text}}\n`, "latin1")
      )
      return toldByRpc(yield* session.next)
    })
})

const openText = Effect.succeed(({ method, body, owner }: Asked) =>
  outcomeOf(
    InMemory.callText(method as Method, new TextDecoder("utf-8", { ignoreBOM: true }).decode(body)),
    owner
  )
).pipe(withDriver)

const openValue = Effect.succeed(({ method, body, owner }: Asked) =>
  outcomeOf(
    Effect.map(
      InMemory.call(method as Method, body.length === 0 ? undefined : JSON.parse(body.toString())),
      (answer) => JSON.stringify(answer)
    ),
    owner
  )
).pipe(withDriver)

/** `ADD` of a container that has the backends' addresses, as the plugin executes it. */
const openCni = Effect.gen(function* () {
  const driver = yield* Driver
  return addingBy("/nonexistent", (config) =>
    Effect.scoped(execute({ variables: attached, input: () => config })).pipe(
      Effect.provideService(Driver, driver)
    )
  )
})

/** The same by the executable, without a Node to fall back on. */
const openCniFront = Effect.gen(function* () {
  const socket = yield* socketFor(yield* Driver, { handlers: { [executePath]: executeHandler } })
  const cni = cniByFront(yield* pathOf("cat", "curl"))
  return addingBy(socket, (config) => cni("ADD", config, attached))
})

const attached = {
  CNI_COMMAND: "ADD",
  CNI_CONTAINERID: "table",
  CNI_NETNS: "/run/netns/table",
  CNI_IFNAME: "eth0"
}

const addingBy =
  (
    socket: string,
    add: (config: string) => Effect.Effect<{ readonly status: number | string; readonly stdout: string }>
  ) =>
  ({ body }: Asked) =>
    Effect.gen(function* (): Effect.fn.Return<Told> {
      const entries = entriesIn(body)
      const config = configText({
        cniVersion: "1.1.0",
        name: "table",
        socket,
        runtimeConfig: {
          portMappings: entries.map(({ Proto, FrontendIP, FrontendPort, BackendPort }) => ({
            protocol: protocolName(Proto),
            hostIP: FrontendIP,
            hostPort: FrontendPort,
            containerPort: BackendPort
          }))
        },
        prevResult: {
          cniVersion: "1.1.0",
          ips: [...new Set(entries.map(({ BackendIP }) => BackendIP))].map((address) => ({ address }))
        },
        type: "portmapper-cni"
      })
      const { status, stdout } = yield* add(config)
      if (status === 0) return { outcome: "answer", message: stdout, issues: undefined, ownWords: true }
      const { code, msg } = JSON.parse(stdout)
      const outcome = code === 7 ? "request" : code === 100 ? "driver" : "defect"
      return { outcome, message: msg, issues: undefined }
    })

/** A container whose labels ask for the entries, one by one. The watch logs the outcome. */
const openLabels = Effect.gen(function* () {
  const services = yield* Layer.build(
    Layer.mergeAll(Memory.layer(), InterfaceAddresses.layerMemory, WatchRecord.layerMemory)
  )
  const engine = Context.get(services, MemoryEngine)
  const lines: Array<string> = []
  yield* startWatch({ trustImageLabels: false }).pipe(
    Effect.provideContext(services),
    Effect.provide(Logger.layer([Logger.make(({ message }) => void lines.push([message].flat().join(" ")))])),
    Effect.orDie
  )
  let count = 0
  return ({ body }: Asked) =>
    Effect.gen(function* () {
      const entries = entriesIn(body)
      const name = `container${count++}`
      const publish = entries.map(
        ({ Proto, FrontendIP, FrontendPort, BackendPort }) =>
          `${FrontendIP.includes(":") ? `[${FrontendIP}]` : FrontendIP}:${FrontendPort}:${BackendPort}/${protocolName(Proto)}`
      )
      yield* engine.run({
        name,
        labels: { "portmapper.publish": publish.join() },
        networks: { bridge: [...new Set(entries.map(({ BackendIP }) => BackendIP))] }
      })
      let line: string | undefined
      while (line === undefined) {
        yield* Effect.sleep("5 millis")
        line = lines.find((line) => line.startsWith(`${name}: `))
      }
      const [, error] = /^\S+ not published: \S+: (.*)$/s.exec(line) ?? []
      if (error === undefined)
        return { outcome: "answer", message: line, issues: undefined, ownWords: true } satisfies Told
      const outcome = error.startsWith("internal error: ") ? "defect" : "driver"
      return { outcome, message: error, issues: undefined } satisfies Told
    })
})

/** Calls the driver of the fiber that opened the transport. */
function withDriver(
  opened: Effect.Effect<(asked: Asked) => Effect.Effect<Told, never, Driver>>
): Transport["open"] {
  return Effect.gen(function* () {
    const driver = yield* Driver
    const ask = yield* opened
    return (asked) => Effect.provideService(ask(asked), Driver, driver)
  })
}

const outcomeOf = <E extends { readonly _tag: string; readonly message: string }>(
  call: Effect.Effect<string, E, Driver>,
  owner: string | undefined
): Effect.Effect<Told, never, Driver> =>
  Effect.map(Effect.exit(Effect.provideService(call, CurrentOwner, owner ?? "default")), (exit) => {
    if (Exit.isSuccess(exit)) return { outcome: "answer", message: exit.value, issues: undefined }
    const { kind, message } = failureOf(exit.cause)
    const error = Option.getOrUndefined(Cause.findErrorOption(exit.cause))
    return { outcome: kind, message, issues: error instanceof RequestError ? error.issues : undefined }
  })

const headersOf = (owner: string | undefined): Record<string, string> =>
  owner === undefined ? {} : { "Portmapper-Owner": owner }

const toldByHttp = (status: number, text: string): Told => {
  if (status === 200) return { outcome: "answer", message: text.trimEnd(), issues: undefined }
  const { Err: message, ...rest } = JSON.parse(text)
  if (Object.keys(rest).length > 0) throw new Error(`more than Err: ${text}`)
  const ownWords = status === 413 || (status === 404 && message.startsWith("/"))
  const outcome =
    status === 404
      ? "notFound"
      : status === 500
        ? message.startsWith("internal error: ")
          ? "defect"
          : "driver"
        : "request"
  return { outcome, message, issues: undefined, ownWords }
}

const toldByRpc = (answer: {
  readonly result?: unknown
  readonly error?: {
    readonly code: number
    readonly message: string
    readonly data?: { readonly issues?: ReadonlyArray<Issue> }
  }
}): Told => {
  if (answer.error === undefined)
    return { outcome: "answer", message: JSON.stringify(answer.result), issues: undefined }
  const { code, message, data } = answer.error
  const outcome = outcomes.get(code) ?? "request"
  return {
    outcome,
    message,
    issues: data?.issues,
    ownWords: message === "Method not found" || message === "Invalid Request"
  }
}

const outcomes = new Map<number, Told["outcome"]>([
  [-32601, "notFound"],
  [-32603, "defect"],
  [-32000, "driver"]
])

/** What `params` of JSON-RPC can't contain. */
const brokenEnvelope = ({ body, method }: Row): string | undefined => {
  if (method !== "Plugin.Activate" && body.trim() === "") {
    return "an empty body is params left out, which has words of its own"
  }
  const tree = parse(Buffer.from(body, "latin1").toString())
  if (Result.isSuccess(tree)) return undefined
  return body.trim() === "" ? undefined : "what is no JSON breaks the envelope around it"
}

const notACall = ({ method, body }: Row): string | undefined => {
  if (!Method.literals.some((known) => known === method)) return "a method that is not there can't be called"
  return body.length > 1024 * 1024 ? "there is no limit in process" : undefined
}

const notAValue = ({ body, method }: Row): string | undefined => {
  if (body.trim() === "") return method === "Plugin.Activate" ? undefined : "there is no value of no text"
  const tree = parse(Buffer.from(body, "latin1").toString())
  if (Result.isFailure(tree)) return "what is no JSON is no value"
  if (repeats(tree.success)) return "an object has no equal keys"
  return /\d\.0\b|\de\d/.test(body) ? "a value has no other spelling of its numbers" : undefined
}

/** What no container asks for: it has exact ports and addresses, and its adapter builds the request. */
const notPublished = ({ body, method, name }: Row): string | undefined => {
  if (method !== "PortMapper.MapPorts") return "a container is published, or ends, and asks for nothing else"
  const text = body.toString()
  const tree = parse(text)
  if (name.startsWith("odd input") || Result.isFailure(tree))
    return "the request is put together by the adapter"
  const { Labels, Reqs, ...rest } = JSON.parse(text) ?? {}
  if (Labels || Object.keys(rest).length > 0) return "the labels are the adapter's"
  if (!Array.isArray(Reqs) || Reqs.length === 0) return "does not call the plugin where nothing is published"
  const sayable = entriesIn(Buffer.from(body)).every(
    ({ BackendIP, BackendPort, FrontendIP, FrontendPort, FrontendPortEnd, Proto }) =>
      [6, 17, 132].includes(Proto) &&
      [FrontendPort, BackendPort].every((port) => Number.isInteger(port) && port > 0 && port < 65536) &&
      FrontendPort === FrontendPortEnd &&
      [FrontendIP, BackendIP].every((address) => Net.isIP(address) !== 0)
  )
  return sayable ? undefined : "a port mapping has an exact port and addresses"
}

const protocolName = (number: WireEntry["Proto"]): string => ({ 6: "tcp", 17: "udp", 132: "sctp" })[number]

interface WireEntry {
  readonly Proto: 6 | 17 | 132
  readonly BackendIP: string
  readonly BackendPort: number
  readonly FrontendIP: string
  readonly FrontendPort: number
  readonly FrontendPortEnd: number
}

const entriesIn = (body: Buffer): ReadonlyArray<WireEntry> => JSON.parse(body.toString()).Reqs

const repeats = (value: JsonValue): boolean => {
  if (Array.isArray(value)) return value.some(repeats)
  if (!(value instanceof JsonObject)) return false
  const keys = new Set(value.entries.map(([key]) => key))
  return keys.size < value.entries.length || value.entries.some(([, item]) => repeats(item))
}
