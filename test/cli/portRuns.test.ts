import { assert, describe, it } from "@effect/vitest"
import { portLines } from "../../adapters/cli/portRuns.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import { endpoint } from "../support/groups.ts"

describe("many ports", () => {
  const line = (host: string, port: number, backend?: string, note?: string) => ({
    protocol: "tcp" as const,
    host: addressUnsafe(host),
    port,
    backend: backend === undefined ? undefined : endpoint(backend),
    note
  })

  it("are printed as ranges where neighbours differ only in the port", () => {
    assert.deepStrictEqual(
      portLines([
        line("0.0.0.0", 80, "10.0.0.1:8080"),
        line("::", 80, "10.0.0.1:8080"),
        line("0.0.0.0", 81, "10.0.0.1:8081"),
        line("::", 81, "10.0.0.1:8081"),
        line("0.0.0.0", 82, "10.0.0.1:8090"),
        line("0.0.0.0", 83, undefined, " discarded: no"),
        line("0.0.0.0", 84, undefined, " discarded: no"),
        line("0.0.0.0", 85, "10.0.0.2:1"),
        line("0.0.0.0", 0, "10.0.0.2:1")
      ]),
      [
        "0.0.0.0:80-81/tcp -> 10.0.0.1:8080-8081",
        "[::]:80-81/tcp -> 10.0.0.1:8080-8081",
        "0.0.0.0:82/tcp -> 10.0.0.1:8090",
        "0.0.0.0:83-84/tcp discarded: no",
        "0.0.0.0:85/tcp -> 10.0.0.2:1",
        "-/tcp -> 10.0.0.2:1"
      ]
    )
  })

  it("name the container where that has no address, since it is asleep", () => {
    const asleep = [80, 81].map((port) => ({ ...line("::", port, `[100::1]:${port}`), container: "web" }))
    assert.deepStrictEqual(portLines(asleep), ["[::]:80-81/tcp -> web (asleep)"])
  })
})
