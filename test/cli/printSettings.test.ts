import { assert, describe, it } from "@effect/vitest"
import { Option } from "effect"
import { defaultSocket, defaultState } from "../../adapters/cli/options.ts"
import { settingsText } from "../../adapters/cli/printSettings.ts"
import type { Source } from "../../adapters/cli/settings.ts"

const source = (key: string, option: string, more: Partial<Source> = {}): Source => ({
  ...{ key, option, text: undefined, from: "default" },
  ...more
})

interface Given {
  readonly tcp?: boolean
  readonly socket?: string
  readonly watch?: boolean
}

/** The only row. */
const row = (
  one: Source,
  { tcp, socket, ...flags }: Given = {},
  env: Readonly<Record<string, string>> = {}
) => {
  const options = {
    ...{ name: "p", state: Option.none(), socket: Option.fromNullishOr(socket) },
    tcp: tcp === true ? Option.some("127.0.0.1:1") : Option.none(),
    ...flags
  }
  return settingsText([one], options, env).split("\n")[1]?.split(/ {2,}/)
}

describe("a setting in force", () => {
  it("is what an option or a variable gives, without control characters", () => {
    assert.deepStrictEqual(row(source("mode", "mode", { text: "nat", from: "option" })), [
      "mode",
      "nat",
      "option"
    ])
    const variable = { text: "\u001b[2J", from: "PORTMAPPER_STATE" } as const
    assert.deepStrictEqual(row(source("state", "state", variable)), ["state", "\\x1b[2J", "PORTMAPPER_STATE"])
  })

  it("is the default otherwise: of the option itself, a text, or -", () => {
    assert.deepStrictEqual(row(source("watch", "watch"), { watch: false }), ["watch", "false", "default"])
    assert.deepStrictEqual(row(source("name", "name")), ["name", "p", "default"])
    assert.deepStrictEqual(row(source("udpIdle", "udp-idle")), ["udp-idle", "90s", "default"])
    assert.deepStrictEqual(row(source("group", "group")), ["group", "-", "default"])
  })

  it("is Docker's variable for the Engine, if that is not empty", () => {
    const engine = source("engine", "engine")
    assert.deepStrictEqual(row(engine, {}, { DOCKER_HOST: "tcp://e:1" }), [
      "engine",
      "tcp://e:1",
      "DOCKER_HOST"
    ])
    assert.deepStrictEqual(row(engine, {}, { DOCKER_HOST: "" }), [
      "engine",
      "unix:///var/run/docker.sock",
      "default"
    ])
  })

  it("is no socket where a TCP port or systemd's socket is served instead", () => {
    const socket = source("socket", "socket")
    assert.strictEqual(row(socket)?.[1], defaultSocket("p"))
    assert.strictEqual(row(socket, { tcp: true })?.[1], "-")
    assert.strictEqual(row(socket, {}, { LISTEN_FDS: "1" })?.[1], "-")
    assert.strictEqual(row(source("state", "state"), { socket: "/x/p.sock" })?.[1], defaultState("/x/p.sock"))
  })

  it("is a folder of specs only for a TCP port", () => {
    const specs = source("specDir", "spec-dir")
    assert.deepStrictEqual([row(specs)?.[1], row(specs, { tcp: true })?.[1]], ["-", "/etc/docker/plugins"])
  })

  it("is no variable that merely looks like one", () => {
    const options = { name: "p", state: Option.none(), socket: Option.none(), tcp: Option.none() }
    const env = { PORTMAPPER_MODE: "nat", PORTMAPPER_MOED: "nat", MODE: "nat" }
    assert.deepStrictEqual(
      settingsText([source("mode", "mode")], options, env)
        .split("\n")
        .slice(2),
      ["PORTMAPPER_MOED is no setting of serve"]
    )
  })
})
