import { assert, describe, it } from "@effect/vitest"
import { AdoptedSockets } from "../../src/ports/AdoptedSockets.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"

const socket = (host: string, port = 8080) => ({ protocol: "tcp", host: addressUnsafe(host), port }) as const

const adopt = (...sockets: ReadonlyArray<ReturnType<typeof socket>>) => {
  const adopted = new AdoptedSockets<ReturnType<typeof socket>>()
  for (const each of sockets) adopted.add(each)
  const claim = (host: string, port = 8080, protocol: "tcp" | "udp" = "tcp") =>
    adopted.claim(protocol, addressUnsafe(host), port)?.host.text
  return { adopted, claim }
}

describe("adopted sockets", () => {
  it("are claimed once, by their own address before one that it covers", () => {
    const { claim } = adopt(socket("0.0.0.0"), socket("10.0.0.1"))
    assert.deepStrictEqual(
      [claim("10.0.0.1"), claim("10.0.0.1"), claim("10.0.0.1"), claim("0.0.0.0")],
      ["10.0.0.1", "0.0.0.0", undefined, undefined]
    )
  })

  it("are no other port's, protocol's or family's, and not those of an address that they don't cover", () => {
    const { claim } = adopt(socket("0.0.0.0"), socket("10.0.0.1", 8081))
    assert.deepStrictEqual(
      [claim("0.0.0.0", 8082), claim("0.0.0.0", 8080, "udp"), claim("::1"), claim("0.0.0.0", 8081)],
      [undefined, undefined, undefined, undefined]
    )
    assert.strictEqual(claim("::ffff:10.0.0.1", 8081), "10.0.0.1")
  })

  it("are left over where no claim took them, and can't be claimed any more", () => {
    const { adopted, claim } = adopt(socket("0.0.0.0"), socket("::"))
    claim("10.0.0.1")
    assert.deepStrictEqual(
      adopted.rest().map(({ host }) => host.text),
      ["::"]
    )
    assert.deepStrictEqual([claim("::"), adopted.rest().length], [undefined, 0])
  })
})
