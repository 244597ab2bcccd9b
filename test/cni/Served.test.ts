import * as Net from "node:net"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect } from "effect"
import { executeHandler, executePath } from "../../adapters/cni/Served.ts"
import { PortMapper } from "../../src/mapper/PortMapper.ts"
import { Driver } from "../../src/protocol/Driver.ts"
import { bridgeResult, configText, type Ports, portMappings } from "../support/cni.ts"
import { request } from "../support/http.ts"
import { socketFor } from "../support/socket.ts"

const handlers = { [executePath]: executeHandler }
const outcome = "application/vnd.portmapper.cni+json"
const prevResult = bridgeResult("10.88.0.2/16")

const network = (...ports: ReadonlyArray<Ports>) => ({
  cniVersion: "1.0.0",
  name: "net",
  prevResult,
  ...portMappings(...ports)
})

const headersOf = (command: string, headers: Record<string, string> = {}) => ({
  "CNI-Command": command,
  "CNI-ContainerID": "c1",
  "CNI-Netns": "/run/netns/c1",
  "CNI-IfName": "eth0",
  ...headers
})

const ask = (socket: string, command: string, config: object | string, headers?: Record<string, string>) =>
  Effect.promise(() =>
    request(socket, executePath, typeof config === "string" ? config : configText(config), {
      headers: headersOf(command, headers)
    })
  )

const ownersOf = ({ listPorts = Effect.succeed([]) }: Driver["Service"]) =>
  Effect.map(listPorts, (listed) =>
    listed.map(({ owner, frontendPort }) => `${owner} ${frontendPort}`).sort()
  )

describe("an execution handed over to the plugin", () => {
  it.live("is answered with the executable's output, and whether that is an error", () =>
    Effect.gen(function* () {
      const driver = yield* Driver
      const socket = yield* socketFor(driver, { handlers })
      const asked = network({ hostPort: 8080, containerPort: 80 })
      assert.deepStrictEqual(yield* ask(socket, "ADD", asked), {
        status: 200,
        contentType: outcome,
        body: `${JSON.stringify(prevResult)}\n`
      })
      assert.deepStrictEqual(yield* ownersOf(driver), ["cni:c1/eth0 8080"])
      assert.deepStrictEqual(yield* ask(socket, "DEL", asked), {
        status: 200,
        contentType: outcome,
        body: ""
      })
      assert.deepStrictEqual(yield* ownersOf(driver), [])
      assert.deepStrictEqual(yield* ask(socket, "CHECK", asked), {
        status: 500,
        contentType: outcome,
        body: '{"cniVersion":"1.0.0","code":101,"msg":"ports are not published as they should be","details":"0.0.0.0:8080/tcp is not published"}\n'
      })
      assert.deepStrictEqual(yield* ask(socket, "ADD", "{"), {
        status: 500,
        contentType: outcome,
        body: '{"cniVersion":"1.1.0","code":6,"msg":"the network configuration on stdin is no JSON","details":"Expected property name or \'}\' in JSON at position 1 (line 1 column 2)"}\n'
      })
      const { body } = yield* ask(socket, "DEL", asked, { "CNI-ContainerID": "", "CNI-IfName": "a:b" })
      assert.strictEqual(JSON.parse(body).msg, "required env variables [CNI_CONTAINERID] missing")
    }).pipe(Effect.scoped, Effect.provide(PortMapper.layerMemory()))
  )

  it.live("is refused where the configuration names another socket than the request came through", () =>
    Effect.gen(function* () {
      const driver = yield* Driver
      const socket = yield* socketFor(driver, { handlers })
      const asked = network({ hostPort: 8080, containerPort: 80 })
      const statuses = yield* Effect.forEach(
        [
          [{ ...asked, socket }, ""],
          [{ ...asked, socket: 5 }, ""],
          [asked, socket],
          [{ ...asked, socket: "/run/other.sock" }, socket],
          ["no JSON", socket]
        ] as const,
        ([config, named]) =>
          Effect.map(
            ask(socket, "ADD", config, { "Portmapper-Socket": named }),
            ({ status, contentType }) => `${status} ${contentType}`
          )
      )
      assert.deepStrictEqual([...new Set(statuses)], ["421 application/json"])
      assert.deepStrictEqual(yield* ownersOf(driver), [])
      const own = { ...asked, socket }
      assert.strictEqual((yield* ask(socket, "ADD", own, { "Portmapper-Socket": socket })).status, 200)
    }).pipe(Effect.scoped, Effect.provide(PortMapper.layerMemory()))
  )

  it.live("rolls back all its calls where its client disconnects before the answer", () =>
    Effect.gen(function* () {
      const driver = yield* Driver
      const { mapGroups: _, ...oneByOne } = driver
      const begun = yield* Deferred.make<void>()
      const interrupted = yield* Deferred.make<void>()
      const socket = yield* socketFor(
        Driver.of({
          ...oneByOne,
          mapPorts: (group) =>
            group.ports._tag === "Exact" && group.ports.port === 20_600
              ? Deferred.succeed(begun, undefined).pipe(
                  Effect.andThen(Effect.never),
                  Effect.onInterrupt(() => Deferred.succeed(interrupted, undefined))
                )
              : driver.mapPorts(group)
        }),
        { handlers }
      )
      // There are more groups than one call takes: the first call has been answered, to the execution.
      const many = Array.from({ length: 700 }, (_, index) => ({
        hostPort: 20_000 + index,
        containerPort: 80
      }))
      const client = Net.connect(socket)
      const body = configText(network(...many))
      const head = Object.entries(headersOf("ADD")).map(([name, value]) => `${name}: ${value}\r\n`)
      client.write(
        `POST ${executePath} HTTP/1.1\r\n${head.join("")}Content-Length: ${body.length}\r\n\r\n${body}`
      )
      yield* Deferred.await(begun)
      assert.lengthOf(yield* ownersOf(driver), 600)
      client.destroy()
      yield* Deferred.await(interrupted)
      while ((yield* ownersOf(driver)).length > 0) yield* Effect.sleep("5 millis")
      const less = network(...many.slice(0, 600))
      assert.strictEqual((yield* ask(socket, "ADD", less)).status, 200)
      assert.lengthOf(yield* ownersOf(driver), 600)
    }).pipe(Effect.scoped, Effect.provide(PortMapper.layerMemory()))
  )
})
