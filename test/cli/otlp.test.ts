import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Tracer } from "effect"
import { withSteps } from "../../adapters/cli/otlp.ts"
import { Firewall } from "../../src/firewall/Firewall.ts"
import { HostSockets } from "../../src/ports/HostSockets.ts"
import { CurrentOwner } from "../../src/protocol/Driver.ts"
import { portmapper } from "../support/command.ts"

/** The names of the spans that end while this runs, each below its parent's. */
const spansOf = (effect: Effect.Effect<unknown>) =>
  Effect.gen(function* () {
    const names: Array<string> = []
    const tracer = Tracer.make({
      span: (options) => {
        const span = new Tracer.NativeSpan(options)
        const parent = options.parent._tag === "Some" ? (options.parent.value as Tracer.Span).name : "none"
        names.push(`${parent} > ${options.name}`)
        return span
      }
    })
    yield* Effect.provideService(effect, Tracer.Tracer, tracer)
    return names
  })

describe("the steps of a call", () => {
  const services = Effect.gen(function* () {
    const context = yield* Effect.context<Firewall | HostSockets>()
    const other = Context.add(context, CurrentOwner, "cli")
    return { before: context, after: withSteps(other) }
  }).pipe(Effect.provide(Firewall.layerMemory), Effect.provide(HostSockets.layerMemory))

  it.effect("are spans of the services that the mapper calls, named for them, within a span alone", () =>
    Effect.gen(function* () {
      const { after } = yield* services
      const firewall = Context.get(after, Firewall)
      const step = Effect.andThen(firewall.check, firewall.apply({ add: [], remove: [] }))
      assert.deepStrictEqual(yield* spansOf(Effect.orDie(Effect.withSpan(step, "call"))), [
        "none > call",
        "call > Firewall.check",
        "call > Firewall.apply"
      ])
      assert.deepStrictEqual(yield* spansOf(Effect.orDie(step)), [])
    })
  )

  it.effect("leave services alone that are no step, or are not there", () =>
    Effect.gen(function* () {
      const { after, before } = yield* services
      assert.strictEqual(Context.get(after, CurrentOwner), "cli")
      assert.notStrictEqual(Context.get(after, HostSockets), Context.get(before, HostSockets))
      assert.strictEqual(withSteps(Context.empty()).mapUnsafe.size, 0)
    })
  )
})

describe("OpenTelemetry's variables", () => {
  it.live("are refused by name if they are wrong, and load nothing where the SDK is disabled", () =>
    Effect.gen(function* () {
      const run = (env: Readonly<Record<string, string>>) => portmapper(["rpc", "--memory"], { env })
      const OTEL_EXPORTER_OTLP_ENDPOINT = "http://127.0.0.1:1"
      const refused = (line: string) => ({ status: 2, stdout: "", stderr: `portmapper: ${line}\n` })
      assert.deepStrictEqual(
        yield* run({ OTEL_EXPORTER_OTLP_ENDPOINT: "collector" }),
        refused('OTEL_EXPORTER_OTLP_ENDPOINT "collector": expected a valid URL string')
      )
      assert.deepStrictEqual(
        yield* run({ OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_PROTOCOL: "grpc" }),
        refused('OTEL_EXPORTER_OTLP_PROTOCOL "grpc": expected "http/protobuf" | "http/json"')
      )
      const disabled = { OTEL_SDK_DISABLED: "true", OTEL_EXPORTER_OTLP_PROTOCOL: "grpc" }
      assert.deepStrictEqual(yield* run({ OTEL_EXPORTER_OTLP_ENDPOINT, ...disabled }), {
        status: 0,
        stdout: "",
        stderr: ""
      })
    })
  )
})
