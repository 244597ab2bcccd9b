import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import { interfaceIn, parseLabelled } from "../../src/protocol/InterfaceLabel.ts"
import { publishText } from "../../src/protocol/PublishSyntax.ts"

const other = ["portmapper.allow", "10.0.0.0/8"] as const
const named = (name: string) => interfaceIn(new Map([other, ["portmapper.interface", name]]))

describe("the label portmapper.interface", () => {
  it("names an interface, and is not among the labels of what is mapped", () => {
    assert.deepStrictEqual(Result.getOrThrow(named("wg0")), {
      interfaceName: "wg0",
      others: new Map([other])
    })
    assert.deepStrictEqual(Result.getOrThrow(interfaceIn(new Map([other]))), {
      ...{ interfaceName: undefined, others: new Map([other]) }
    })
  })

  for (const name of ["", "10.0.0.1", "eth0/1", "localhost", "all", "a".repeat(16)])
    it(`is refused as ${JSON.stringify(name)} with the rule`, () =>
      assert.strictEqual(
        Result.getOrThrow(Result.flip(named(name))).message,
        `bad request: Labels["portmapper.interface"] = ${JSON.stringify(name)}: must be the name of an interface: at most 15 letters, digits, \`_\`, \`.\` and \`-\`, with a letter among them, and not one of localhost (whose interface is lo), all and default`
      ))

  it("puts every -p beside it at its interface, or refuses one that is elsewhere or without an exact port", () => {
    const text = (publish: string, name?: string) =>
      Result.match(parseLabelled(publish, name), { onSuccess: publishText, onFailure: (rule) => rule })
    assert.strictEqual(text("8080:80"), "8080:80")
    assert.strictEqual(text("8080:80", "wg0"), "wg0:8080:80")
    assert.strictEqual(text("wg0:8080:80", "wg0"), "wg0:8080:80")
    assert.strictEqual(text("eth0:8080:80", "wg0"), "published at eth0 already, so not at the interface wg0")
    assert.strictEqual(
      text("80", "wg0"),
      "an interface needs an exact host port for each container port: wg0:PORT:80"
    )
    assert.match(text("x", "wg0"), /^container port "x"/)
  })
})
