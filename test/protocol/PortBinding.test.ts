import { assert, describe, it } from "@effect/vitest"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import {
  endpointText,
  frontendText,
  meansBackend,
  rangeFrontendText
} from "../../src/protocol/PortBinding.ts"
import { endpoint } from "../support/groups.ts"

describe("a backend that a release names", () => {
  const web = endpoint("172.17.0.2:80")

  for (const [named, is] of [
    [web, true],
    [endpoint("::ffff:172.17.0.2:80"), true],
    [endpoint("172.17.0.3:80"), false],
    [endpoint("172.17.0.2:81"), false],
    [{ address: undefined, port: 81 }, true],
    [{ address: addressUnsafe("172.17.0.3"), port: 0 }, true]
  ] as const)
    it(`${is ? "means" : "does not mean"} 172.17.0.2:80 as ${named.address?.text}:${named.port}`, () =>
      assert.strictEqual(meansBackend(named, web), is))
})

describe("an address and its port", () => {
  it("are one text, with an IPv6 address in brackets", () => {
    const [v4, v6] = [addressUnsafe("0.0.0.0"), addressUnsafe("::1")]
    assert.strictEqual(frontendText("tcp", v4, 8080), "0.0.0.0:8080/tcp")
    assert.strictEqual(frontendText("udp", v6, 53), "[::1]:53/udp")
    assert.strictEqual(rangeFrontendText("tcp", v4, { first: 8000, last: 8010 }), "0.0.0.0:8000-8010/tcp")
    assert.strictEqual(rangeFrontendText("tcp", v4, { first: 8000, last: 8000 }), "0.0.0.0:8000/tcp")
    assert.strictEqual(endpointText({ address: v6, port: 80 }), "[::1]:80")
  })
})
