/**
 * An OpenTelemetry collector for OTLP in JSON over HTTP: prints its URL, then a line for each span and for each export of
 * metrics. Source: opentelemetry.io/docs/specs/otlp.
 */
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { text } from "node:stream/consumers"

interface Attribute {
  readonly key: string
  readonly value: { readonly stringValue?: string }
}

interface Resource {
  readonly attributes: ReadonlyArray<Attribute>
}

export interface Span {
  readonly name: string
  readonly kind: number
  readonly spanId: string
  readonly parentSpanId?: string
  readonly startTimeUnixNano: string
  readonly endTimeUnixNano: string
  readonly status: { readonly code: number; readonly message?: string }
}

interface Point {
  readonly attributes: ReadonlyArray<Attribute>
  readonly asDouble?: number
  readonly asInt?: string
}

interface Exported {
  readonly resourceSpans?: ReadonlyArray<{
    readonly resource: Resource
    readonly scopeSpans: ReadonlyArray<{ readonly spans: ReadonlyArray<Span> }>
  }>
  readonly resourceMetrics?: ReadonlyArray<{
    readonly resource: Resource
    readonly scopeMetrics: ReadonlyArray<{
      readonly metrics: ReadonlyArray<{
        readonly name: string
        readonly sum?: { readonly dataPoints: ReadonlyArray<Point> }
        readonly gauge?: { readonly dataPoints: ReadonlyArray<Point> }
      }>
    }>
  }>
}

const textOf = (attributes: ReadonlyArray<Attribute>): string =>
  attributes.map(({ key, value }) => `${key}=${value.stringValue}`).join(" ")
const service = ({ attributes }: Resource): string =>
  textOf(attributes.filter(({ key }) => key.startsWith("service.")))

const server = createServer(async (request, response) => {
  const { resourceSpans = [], resourceMetrics = [] } = JSON.parse(await text(request)) as Exported
  for (const { resource, scopeSpans } of resourceSpans)
    for (const span of scopeSpans.flatMap(({ spans }) => spans))
      console.log(`span ${JSON.stringify({ service: service(resource), path: request.url, ...span })}`)
  for (const { resource, scopeMetrics } of resourceMetrics) {
    const samples = scopeMetrics.flatMap(({ metrics }) =>
      metrics.flatMap(({ name, sum, gauge }) =>
        (sum ?? gauge)?.dataPoints.map((point) =>
          `${name} ${textOf(point.attributes)} ${point.asInt ?? point.asDouble}`.replace("  ", " ")
        )
      )
    )
    console.log(`metrics ${JSON.stringify({ service: service(resource), path: request.url, samples })}`)
  }
  response.end("{}")
})

server.listen(0, "127.0.0.1", () =>
  console.log(`collecting at http://127.0.0.1:${(server.address() as AddressInfo).port}`)
)
