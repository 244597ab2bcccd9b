import { assert, describe, it } from "@effect/vitest"
import { followedContainer, followedInterface } from "../../src/protocol/FollowLabels.ts"

const labels = (own: Readonly<Record<string, string>>) =>
  new Map(Object.entries(own).map(([name, value]) => [`portmapper.${name}`, value]))

describe("the container that a mapping follows", () => {
  for (const [label, container] of [
    ["web/0123456789ab", { name: "web", id: "0123456789ab" }],
    ["a/b/0123456789ab", { name: "a/b", id: "0123456789ab" }],
    ["0123456789ab", undefined],
    ["web/", undefined],
    ["/0123456789ab", undefined],
    ["web/WEB", undefined],
    ["", undefined]
  ] as const)
    it(`by ${JSON.stringify(label)} is ${JSON.stringify(container)}`, () =>
      assert.deepStrictEqual(followedContainer(labels({ container: label })), container))
})

describe("the interface that a mapping follows", () => {
  for (const [own, name] of [
    [{ to: "172.17.0.2", publish: "eth0:8080:80" }, "eth0"],
    [{ container: "web/0123456789ab", publish: "eth0:8080:80" }, "eth0"],
    [{ to: "172.17.0.2", publish: "127.0.0.1:8080:80" }, undefined],
    [{ to: "172.17.0.2" }, undefined],
    // A container's own label, which the plugin did not set.
    [{ publish: "eth0:8080:80" }, undefined]
  ] as const)
    it(`by ${JSON.stringify(own)} is ${name}`, () => assert.strictEqual(followedInterface(labels(own)), name))
})
