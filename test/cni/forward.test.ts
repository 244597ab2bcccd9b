/** An execution that finds no plugin, or one that ends: which commands wait, for what, and their outcome. */
import * as Net from "node:net"
import * as Path from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { type Asked, type Outcome, read } from "../../adapters/cni/Execution.ts"
import { forward } from "../../adapters/cni/forward.ts"
import { executeHandler, executePath } from "../../adapters/cni/Served.ts"
import { serveUnix } from "../../adapters/docker/PluginSocket.ts"
import { PortMapper } from "../../src/mapper/PortMapper.ts"
import { Driver } from "../../src/protocol/Driver.ts"
import { bridgeResult, cniByNode, configText, portMappings } from "../support/cni.ts"
import { temporaryFolder } from "../support/socket.ts"

const handlers = { [executePath]: executeHandler }
const prevResult = bridgeResult("10.88.0.2/16")
const commands = ["ADD", "DEL", "CHECK", "GC", "STATUS"]

const network = (socket: string) => ({
  cniVersion: "1.1.0",
  name: "net",
  type: "portmapper-cni",
  socket,
  prevResult,
  ...portMappings({ hostPort: 8080, containerPort: 80 })
})

const variablesOf = (command: string) => ({
  CNI_COMMAND: command,
  CNI_CONTAINERID: "c1",
  CNI_NETNS: "/run/netns/c1",
  CNI_IFNAME: "eth0"
})

/** With this timeout; the default is longer than the test's. */
const forwarded = (command: string, socket: string, patienceMillis = 1_000_000) => {
  const variables = variablesOf(command)
  const asked = read({ variables, input: () => configText(network(socket)) })
  return Effect.promise(() => forward(asked as Asked, variables, patienceMillis))
}

const codeOf = ({ stdout }: Outcome) => {
  const { code, details, msg } = JSON.parse(stdout)
  return `${code} ${msg}${details === undefined ? "" : `; ${details}`}`
}

/** Each connection gets the next of these answers and is closed; once they are used up, each gets the last one. */
const saying = Effect.fnUntraced(function* (...texts: ReadonlyArray<string>) {
  const socket = Path.join(yield* temporaryFolder, "p.sock")
  let connections = 0
  yield* Effect.acquireRelease(
    Effect.callback<Net.Server>((resume) => {
      const server = Net.createServer((connection) => {
        const text = texts[Math.min(connections++, texts.length - 1)] ?? ""
        connection.on("error", () => {}).once("data", () => connection.end(text))
      }).listen(socket, () => resume(Effect.succeed(server)))
    }),
    (server) => Effect.sync(() => void server.close())
  )
  return { socket, connections: () => connections }
})

const http = (status: string, body: string, type = "application/json") =>
  `HTTP/1.1 ${status}\r\nContent-Type: ${type}\r\nContent-Length: ${body.length}\r\n\r\n${body}`

const stopping = http("503 Service Unavailable", '{"Err":"the plugin is stopping; try again"}\n')
const published = http("200 OK", "{}\n", "application/vnd.portmapper.cni+json")

describe("without a plugin", () => {
  it.live("every command but STATUS fails after its timeout with a remedy; STATUS fails at once", () =>
    Effect.gen(function* () {
      const socket = Path.join(yield* temporaryFolder, "p.sock")
      const why = `no portmapper serves ${socket}; start it: systemctl start portmapper, or portmapper serve --socket ${socket}`
      for (const command of commands) {
        const outcome = yield* forwarded(command, socket, command === "STATUS" ? undefined : 50)
        assert.strictEqual(codeOf(outcome), `${command === "STATUS" ? 50 : 11} ${why}`)
      }
      const { status, stdout } = yield* cniByNode("ADD", network(socket))
      assert.deepStrictEqual([status, JSON.parse(stdout).code], [1, 11])
    }).pipe(Effect.scoped)
  )

  it.live("a command waits for a plugin to start", () =>
    Effect.gen(function* () {
      const socket = Path.join(yield* temporaryFolder, "p.sock")
      const waiting = yield* Effect.forkChild(forwarded("ADD", socket))
      yield* Effect.sleep("50 millis")
      yield* serveUnix(socket, { handlers })
      assert.deepStrictEqual(yield* Fiber.join(waiting), {
        status: 0,
        stdout: `${JSON.stringify({ ...prevResult, cniVersion: "1.1.0" })}\n`
      })
      const listed = yield* (yield* Driver).listPorts ?? Effect.succeed([])
      assert.deepStrictEqual(
        listed.map(({ owner, frontendPort }) => `${owner} ${frontendPort}`),
        ["cni:c1/eth0 8080"]
      )
    }).pipe(Effect.scoped, Effect.provide(PortMapper.layerMemory()))
  )
})

describe("where a plugin", () => {
  for (const [title, first] of [
    ["is stopping", stopping],
    ["goes away before it answers", ""],
    ["goes away while it answers", published.slice(0, -2)]
  ] as const)
    it.live(`${title}, the command goes to the next one`, () =>
      Effect.gen(function* () {
        const { connections, socket } = yield* saying(first, first, published)
        assert.deepStrictEqual(yield* forwarded("ADD", socket), { status: 0, stdout: "{}\n" })
        assert.strictEqual(connections(), 3)
      }).pipe(Effect.scoped)
    )

  for (const [title, text, expected] of [
    ["keeps stopping", stopping, "11 the plugin on SOCKET is stopping"],
    ["never answers", "", "11 the plugin on SOCKET closed the connection before an answer"]
  ] as const)
    it.live(`${title}, commands fail after their timeout`, () =>
      Effect.gen(function* () {
        const { socket } = yield* saying(text)
        for (const command of ["DEL", "STATUS"]) {
          const code = codeOf(yield* forwarded(command, socket, 30)).replace(socket, "SOCKET")
          assert.strictEqual(code, command === "STATUS" ? expected.replace("11", "50") : expected)
        }
      }).pipe(Effect.scoped)
    )

  for (const [title, text, expected] of [
    [
      "does not know the path",
      http("404 Not Found", '{"Err":"no such path"}\n'),
      '100 the plugin on SOCKET does not execute CNI commands: it is another plugin, or an older portmapper; it answered with HTTP status 404 {"Err":"no such path"}'
    ],
    [
      "answers everything with 200",
      http("200 OK", "{}\n"),
      "100 the plugin on SOCKET does not execute CNI commands: it is another plugin, or an older portmapper; it answered with HTTP status 200 {}"
    ]
  ] as const)
    it.live(`${title}, the command is not repeated`, () =>
      Effect.gen(function* () {
        const { connections, socket } = yield* saying(text)
        assert.strictEqual(codeOf(yield* forwarded("ADD", socket)).replace(socket, "SOCKET"), expected)
        assert.strictEqual(connections(), 1)
      }).pipe(Effect.scoped)
    )

  it.live("is another server, the error says so", () =>
    Effect.gen(function* () {
      const { socket } = yield* saying("SSH-2.0-OpenSSH_9.2\r\n")
      assert.match(codeOf(yield* forwarded("ADD", socket)), /^999 the answer on \S+ is not HTTP; Parse Error/)
    }).pipe(Effect.scoped)
  )
})
