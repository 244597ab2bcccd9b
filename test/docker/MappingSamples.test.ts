import { assert, it } from "@effect/vitest"
import { mappingSamples } from "../../adapters/docker/MappingSamples.ts"
import { listedMapping } from "../support/mappings.ts"

it("shows the traffic of each mapping, and omits what the host does not count", () => {
  const text = mappingSamples([
    listedMapping({ connections: 3 }),
    listedMapping({
      connections: 3,
      protocol: 17,
      frontendIp: "::",
      backendIp: "fd00::2",
      bytesIn: 10,
      bytesOut: 20,
      refused: { allow: 4, rate: 0 }
    }),
    listedMapping({ frontendPort: 0, mode: "routed", connections: undefined })
  ])
  assert.deepStrictEqual(
    text.split("\n").filter((line) => !line.startsWith("# HELP")),
    [
      "# TYPE portmapper_connections_total counter",
      'portmapper_connections_total{protocol="tcp",frontend="0.0.0.0:8080",backend="172.17.0.2:80"} 3',
      'portmapper_connections_total{protocol="udp",frontend="[::]:8080",backend="[fd00::2]:80"} 3',
      "# TYPE portmapper_refused_total counter",
      'portmapper_refused_total{protocol="udp",frontend="[::]:8080",backend="[fd00::2]:80",reason="allow"} 4',
      'portmapper_refused_total{protocol="udp",frontend="[::]:8080",backend="[fd00::2]:80",reason="rate"} 0',
      "# TYPE portmapper_bytes_total counter",
      'portmapper_bytes_total{protocol="udp",frontend="[::]:8080",backend="[fd00::2]:80",direction="in"} 10',
      'portmapper_bytes_total{protocol="udp",frontend="[::]:8080",backend="[fd00::2]:80",direction="out"} 20',
      ""
    ]
  )
})

it("names a backend that is asleep by its container, whatever state is listed", () => {
  const asleep = { backendIp: "100::1", connections: 3, container: 'we"b\\\n/0123456789ab' }
  const lines = (["asleep", "drained", "conflicted"] as const).flatMap((state) =>
    mappingSamples([listedMapping({ ...asleep, state })])
      .split("\n")
      .filter((line) => line.startsWith("portmapper_connections_total{"))
  )
  assert.deepStrictEqual(
    [...new Set(lines)],
    [
      String.raw`portmapper_connections_total{protocol="tcp",frontend="0.0.0.0:8080",backend="we\"b\\\n:80"} 3`
    ]
  )
})
