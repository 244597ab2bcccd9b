import { assert, describe, it } from "@effect/vitest"
import { containerName, listedBackend, listedFrontend } from "../../src/protocol/ListedText.ts"
import { listedMapping } from "../support/mappings.ts"

describe("the ends of a listed mapping", () => {
  const followed = new Map([
    ["portmapper.to", "172.17.0.2"],
    ["portmapper.publish", "eth0:8080:80"]
  ])

  for (const [more, text] of [
    [{}, "0.0.0.0:8080/tcp"],
    [{ frontendIp: "fd00::1", protocol: 17 }, "[fd00::1]:8080/udp"],
    [{ frontendPort: 0 }, "-/tcp"],
    [{ frontendIp: "", labels: followed }, "eth0:8080/tcp"],
    [{ frontendIp: "" }, "8080/tcp"],
    [{ protocol: 1, frontendIp: "nowhere" }, "nowhere:8080/1"]
  ] as const)
    it(`are ${text} in front for ${JSON.stringify(more)}`, () =>
      assert.strictEqual(listedFrontend(listedMapping(more)), text))

  for (const [more, text] of [
    [{}, "172.17.0.2:80"],
    [{ backendIp: "fd00::2" }, "[fd00::2]:80"],
    [{ backendIp: "" }, "-"],
    [{ state: "asleep" }, "-"],
    [{ state: "waking" }, "-"],
    [{ state: "waiting" }, "172.17.0.2:80"]
  ] as const)
    it(`are ${text} behind for ${JSON.stringify(more)}`, () =>
      assert.strictEqual(listedBackend(listedMapping(more)), text))
})

describe("a container", () => {
  it("is shown by its name, or else by its id", () =>
    assert.deepStrictEqual(["web/0123456789ab", "0123456789ab"].map(containerName), ["web", "0123456789ab"]))
})
