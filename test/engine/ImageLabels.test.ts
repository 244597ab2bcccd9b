import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import { countedLabels, labelEffect } from "../../adapters/engine/ImageLabels.ts"
import { labelNames } from "../../src/mapper/model/Labels.ts"

const labels = (record: Record<string, string>) =>
  new Map(Object.entries(record).map(([name, value]) => [`portmapper.${name}`, value]))

const counted = (container: Record<string, string>, image: Record<string, string>) =>
  Result.map(countedLabels(labels(container), labels(image)), (map) => Object.fromEntries(map))

const publish = { publish: "8080:80" }

describe("the effective labels of a container", () => {
  it("are those that its image does not have with the same value", () => {
    const own = { ...publish, mode: "nat", network: "front", "udp-idle": "5m", allow: "10.0.0.0/8" }
    assert.deepStrictEqual(
      counted(own, { publish: "22:22", mode: "routed", network: "back", "udp-idle": "1h", allow: "::/0" }),
      Result.succeed({
        "portmapper.publish": "8080:80",
        "portmapper.mode": "nat",
        "portmapper.network": "front",
        "portmapper.udp-idle": "5m",
        "portmapper.allow": "10.0.0.0/8"
      })
    )
  })

  it("keep labels that narrow access, whether of the container or its image", () => {
    const narrowing = { allow: "10.0.0.0/8", mode: "proxy", "proxy-protocol": "v2", alow: "10.0.0.0/8" }
    assert.deepStrictEqual(
      counted({ ...publish, ...narrowing }, narrowing),
      Result.succeed({
        "portmapper.publish": "8080:80",
        "portmapper.allow": "10.0.0.0/8",
        "portmapper.mode": "proxy",
        "portmapper.proxy-protocol": "v2",
        "portmapper.alow": "10.0.0.0/8"
      })
    )
  })

  it("are only the container's own where none publishes a port", () => {
    assert.deepStrictEqual(
      counted({ publsh: "8080:80", alow: "10.0.0.0/8" }, { alow: "10.0.0.0/8" }),
      Result.succeed({ "portmapper.publsh": "8080:80" })
    )
  })

  it("exclude labels that widen access where the image has them too", () => {
    const opening = { "udp-idle": "24h", container: "other/0123456789ab" }
    assert.deepStrictEqual(
      counted({ ...publish, ...opening }, opening),
      Result.succeed({ "portmapper.publish": "8080:80" })
    )
    assert.deepStrictEqual(counted(publish, publish), Result.fail("the label is its image's"))
  })

  it.each([
    ["mode", "routed"],
    ["mode", "nat"],
    ["mode", "engine"],
    ["mode", "auto"],
    ["network", "front"]
  ])("publish nothing where %s=%s may be the image's", (name, value) => {
    const steering = { [name]: value }
    assert.deepStrictEqual(
      counted({ ...publish, ...steering }, steering),
      Result.fail(`portmapper.${name}=${value} is its image's too: give the container another value`)
    )
    assert.isTrue(Result.isSuccess(counted({ ...publish, ...steering }, {})))
  })

  it("each have an effect", () => {
    assert.deepStrictEqual(
      labelNames.map((name) => `${name} ${labelEffect(`portmapper.${name}`, "")}`),
      [
        "mode steers",
        "allow narrows",
        "proxy-protocol narrows",
        "udp-idle opens",
        "connections narrows",
        "rate narrows",
        "rate-per-source narrows",
        "share opens",
        "balance opens",
        "scope opens",
        "health opens",
        "wait-healthy opens",
        "publish opens",
        "network steers",
        "interface steers",
        "wake opens",
        "wake-timeout opens",
        "wake-count opens",
        "sleep opens"
      ]
    )
  })
})
