import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { PortMapper } from "../../src/mapper/PortMapper.ts"
import { MemoryHost } from "../../src/ports/HostSockets.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import type { Driver } from "../../src/protocol/Driver.ts"
import { call, type Method, valueBody } from "../../src/protocol/Operations.ts"
import { host, type MemoryServices, nothing } from "../support/memoryHost.ts"

const test = (title: string, body: () => Effect.Effect<void, unknown, MemoryServices>) =>
  it.effect(title, () => Effect.provide(body(), PortMapper.layerMemory()))

const req = (first: number, last: number, more: object = {}) => ({
  Proto: 6,
  BackendIP: "172.17.0.2",
  BackendPort: 80,
  FrontendIP: "0.0.0.0",
  FrontendPort: first,
  FrontendPortEnd: last,
  FullRange: true,
  ...more
})

const ask = (method: Method, value: object): Effect.Effect<unknown, string, Driver> =>
  Effect.scoped(Effect.mapError(call(method, valueBody(value)), ({ message }) => message))
const map = (...Reqs: ReadonlyArray<object>) => ask("PortMapper.MapPorts", { Reqs })
const refused = (...Reqs: ReadonlyArray<object>) => Effect.flip(map(...Reqs))
const unmap = (...PortBindings: ReadonlyArray<object>) => ask("PortMapper.UnmapPorts", { PortBindings })

const rules = Effect.map(host, ({ rules }) => rules)
const three = [0, 1, 2].map((index) => `Redirect 0.0.0.0:${8000 + index}/tcp -> 172.17.0.2:${80 + index}`)

describe("a full range", () => {
  test("is mapped port by port to the backend's ports, answered by one binding, and unmapped by it", () =>
    Effect.gen(function* () {
      const binding = {
        Proto: 6,
        BackendIP: "172.17.0.2",
        BackendPort: 80,
        FrontendIP: "0.0.0.0",
        FrontendPort: 8000,
        DiscardReq: false,
        AllowForwarding: true,
        NAT: null,
        Error: null,
        FrontendPortEnd: 8002,
        FullRange: true
      }
      const draft = { DaemonHostIP: "10.0.0.1", Mapper: "portmapper", ExtraParams: { a: "b" } }
      const answer = { PortBindings: [binding], Err: "" }
      assert.deepStrictEqual(yield* map({ ...req(8000, 8002), ...draft }), answer)
      assert.deepStrictEqual(yield* rules, three)
      assert.deepStrictEqual(yield* map(req(8000, 8002)), answer)
      yield* unmap({ ...binding, ...draft, AllowForwarding: false })
      assert.deepStrictEqual(yield* host, nothing)
    }))

  test("is mapped on several addresses", () =>
    Effect.gen(function* () {
      yield* map(req(8000, 8001), req(8000, 8001, { FrontendIP: "::", BackendIP: "fd00::2" }))
      assert.deepStrictEqual(yield* rules, [
        ...three.slice(0, 2),
        "Redirect [::]:8000/tcp -> [fd00::2]:80",
        "Redirect [::]:8001/tcp -> [fd00::2]:81"
      ])
    }))

  test("is not mapped at all where one port is taken", () =>
    Effect.gen(function* () {
      const memory = yield* MemoryHost
      memory.take("tcp", addressUnsafe("0.0.0.0"), 8002)
      assert.strictEqual(
        yield* refused(req(8000, 8004)),
        "bind for 0.0.0.0:8002/tcp failed: address already in use"
      )
      assert.deepStrictEqual(yield* host, nothing)
    }))

  test("of one port is that port, and without the field one port of it is picked", () =>
    Effect.gen(function* () {
      yield* map(req(8000, 8000))
      yield* map(req(8000, 8005, { FullRange: false, BackendPort: 90 }))
      assert.deepStrictEqual(yield* rules, [three[0] ?? "", "Redirect 0.0.0.0:8001/tcp -> 172.17.0.2:90"])
    }))

  for (const [what, reqs, error] of [
    [
      "that only one of two entries asks for",
      [req(8000, 8001), req(8000, 8001, { FrontendIP: "::", FullRange: false })],
      "Reqs[1].FullRange = false: must be true as in Reqs[0], since the entries of one group get the same port"
    ],
    [
      "with too few backend ports",
      [req(8000, 8002, { BackendPort: 65_534 })],
      "Reqs[0].BackendPort = 65534: must be at most 65533, since the range has 3 ports"
    ],
    [
      "of too many ports",
      [req(1, 65_535, { BackendPort: 1 })],
      "Reqs[0].FrontendPortEnd = 65535: must be at most 20000, since a full range of 1 entries has at most 20000 ports"
    ],
    [
      "that is no boolean",
      [req(8000, 8001, { FullRange: "yes" })],
      'Reqs[0].FullRange = "yes": must be true or false'
    ]
  ] as const)
    test(`${what} is refused`, () =>
      Effect.gen(function* () {
        assert.strictEqual(yield* refused(...reqs), `bad request: ${error}`)
        assert.deepStrictEqual(yield* host, nothing)
      }))

  test("is refused in MapGroups, and so is a release of too many ports", () =>
    Effect.gen(function* () {
      assert.strictEqual(
        yield* Effect.flip(ask("PortMapper.MapGroups", { Groups: [{ Reqs: [req(8000, 8001)] }] })),
        "bad request: Groups[0].Reqs[0].FullRange = true: must be false in MapGroups, which takes a group for each port"
      )
      assert.strictEqual(
        yield* Effect.flip(unmap(req(1, 65_535), req(1, 65_535))),
        "bad request: PortBindings = 131070 ports: must be at most 20000 ports in all"
      )
    }))
})
