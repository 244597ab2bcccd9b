/**
 * Traces and metrics to a collector, by Effect's exporter over HTTP and OpenTelemetry's variables. A span is made for
 * each call (see `Operations`), and here for each step of it: every service that the mapper calls.
 */
import { Cause, Config, ConfigProvider, Context, Effect, Layer, Metric, Option } from "effect"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import * as OtlpMetrics from "effect/observability/OtlpMetrics"
import * as OtlpSerialization from "effect/observability/OtlpSerialization"
import * as OtlpTracer from "effect/observability/OtlpTracer"
import manifest from "../../package.json" with { type: "json" }
import { Conntrack } from "../../src/firewall/Conntrack.ts"
import { Firewall } from "../../src/firewall/Firewall.ts"
import { MappingStore } from "../../src/mapper/MappingStore.ts"
import { HostSockets } from "../../src/ports/HostSockets.ts"
import { PortAllocator } from "../../src/ports/PortAllocator.ts"
import { Relay } from "../../src/relay/Relay.ts"
import { WrongUsage } from "./failure.ts"

/** By the specification both signals are exported where an endpoint is named. */
const defaults = ConfigProvider.layerAdd(
  ConfigProvider.fromUnknown({
    OTEL_TRACES_EXPORTER: "otlp",
    OTEL_METRICS_EXPORTER: "otlp",
    OTEL_SERVICE_NAME: "portmapper",
    OTEL_SERVICE_VERSION: manifest.version
  })
)

const serialization = Layer.unwrap(
  Effect.map(
    Config.Literals(["http/protobuf", "http/json"], "OTEL_EXPORTER_OTLP_PROTOCOL").pipe(
      Config.withDefault("http/protobuf")
    ),
    (protocol) => (protocol === "http/json" ? OtlpSerialization.layerJson : OtlpSerialization.layerProtobuf)
  )
)

/** What the exporters need, with a wrong variable as wrong usage. */
const configured = <A, E, R>(exporter: Layer.Layer<A, E, R>) =>
  exporter.pipe(
    Layer.provide([serialization, FetchHttpClient.layer]),
    Layer.provide(defaults),
    Layer.catchCause((cause) => Layer.effectDiscard(Effect.fail(wrongVariable(cause))))
  )

const wrongVariable = (cause: Cause.Cause<unknown>): WrongUsage => {
  const error = Cause.squash(cause)
  const text = error instanceof Error ? error.message : String(error)
  const [, rule, name] = /Expected (.*)\n\s*at \["(\w+)"\]/.exec(text) ?? []
  return new WrongUsage({
    message: name === undefined ? text : `${name} "${process.env[name]}": expected ${rule}`
  })
}

export const tracesLayer = configured(OtlpTracer.layerFromConfig())

/** Exports what is in the registry until the scope closes. */
export const exportMetrics = (registry: Metric.MetricRegistry) =>
  Effect.asVoid(
    Layer.build(
      configured(OtlpMetrics.layerFromConfig()).pipe(
        Layer.provide(Layer.succeed(Metric.MetricRegistry, registry))
      )
    )
  )

/** Runs it at once, and again before each export. */
export const beforeExports = <R>(refresh: Effect.Effect<void, unknown, R>) =>
  Effect.flatMap(
    Config.Int("OTEL_METRIC_EXPORT_INTERVAL").pipe(Config.withDefault(defaultIntervalMillis)),
    (millis) => Effect.forever(Effect.andThen(Effect.ignore(refresh), Effect.sleep(millis)))
  )

/** The exporter's own. */
const defaultIntervalMillis = 10_000

/** The services whose work within a call is a step of it. */
const steps = [PortAllocator, HostSockets, Firewall, Conntrack, Relay, MappingStore]

/** The same services, with a span for what they do within another span; their background work has none. */
export const withSteps = <S>(services: Context.Context<S>): Context.Context<S> => {
  let traced = services
  for (const key of steps as unknown as ReadonlyArray<Context.Key<S, object>>) {
    const service = Option.getOrUndefined(Context.getOption(services, key))
    if (service !== undefined) traced = Context.add(traced, key, tracedService(nameOf(key.key), service))
  }
  return traced
}

/** `portmapper/ports/HostSockets` */
const nameOf = (key: string): string => key.slice(key.lastIndexOf("/") + 1)

const tracedService = (name: string, service: object): object =>
  new Proxy(service, {
    get: (target, property) => {
      const value: unknown = Reflect.get(target, property)
      const step = `${name}.${String(property)}`
      if (Effect.isEffect(value)) return asStep(step, value)
      if (typeof value !== "function") return value
      return (...args: ReadonlyArray<unknown>) => {
        const returned: unknown = Reflect.apply(value, target, args)
        return Effect.isEffect(returned) ? asStep(step, returned) : returned
      }
    }
  })

const asStep = <A, E, R>(name: string, effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.withFiber((fiber) =>
    fiber.cache.span === undefined ? effect : Effect.withSpan(effect, name, { captureStackTrace: false })
  )
