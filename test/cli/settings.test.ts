/** Options by variables of the environment, and what is printed of them. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { testNeeding } from "../lab/describeLab.ts"
import { onTerminal, portmapper } from "../support/command.ts"

const commands = ["serve", "watch", "rpc"]
const optionsIn = (help: string): ReadonlyArray<string> => help.match(/(?<=^ {2,6}(-\w, )?)--[a-z-]+/gm) ?? []
const variableOf = (option: string) => `PORTMAPPER_${option.slice(2).toUpperCase().replaceAll("-", "_")}`

/** Of every setting of `serve`, a value that is right and not the default. */
const values: Readonly<Record<string, string>> = {
  name: "other",
  socket: "/x/p.sock",
  group: "7",
  tcp: "127.0.0.1:7000",
  page: "unix:/x/page.sock",
  "page-host": "a.example,b.example",
  "tls-cert": "/x/cert",
  "tls-key": "/x/key",
  "tls-ca": "/x/ca",
  "spec-dir": "/x",
  "spec-cert": "/x/spec-cert",
  "spec-key": "/x/spec-key",
  "spec-ca": "/x/spec-ca",
  state: "/x/state",
  mode: "proxy",
  ephemeral: "40000-40010",
  "accept-fwmark": "0x1/0x1",
  "udp-idle": "5m",
  shares: "web,api",
  cluster: "https://10.0.0.1,https://10.0.0.2:2479",
  "cluster-name": "zone1",
  "cluster-ca": "/x/etcd-ca",
  "cluster-cert": "/x/etcd-cert",
  "cluster-key": "/x/etcd-key",
  "cluster-user": "host-a",
  "cluster-password-file": "/x/password",
  "cluster-host": "a",
  "cluster-address": "10.0.0.9",
  "cluster-ttl": "1m",
  "cluster-absence": "1h",
  "cluster-scope": "host",
  watch: "true",
  engine: "tcp://10.0.0.1:2375",
  "trust-image-labels": "yes",
  "engine-pidfile": "/run/docker.pid",
  takeover: "1",
  grace: "3s",
  "release-on-exit": "on",
  metrics: "totals",
  "log-format": "json",
  "log-level": "warn"
}
const all = Object.fromEntries(
  Object.entries(values).map(([name, value]) => [variableOf(`--${name}`), value] as const)
)

const printed = (args: ReadonlyArray<string>, env: Readonly<Record<string, string>>) =>
  Effect.map(portmapper(["serve", "--print-settings", ...args], { env }), ({ status, stdout, stderr }) => {
    assert.deepStrictEqual([status, stderr], [0, ""])
    const [header, ...lines] = stdout.trimEnd().split("\n")
    assert.match(header ?? "", /^SETTING +VALUE +FROM$/)
    return lines.map((line) => line.replaceAll(/ {2,}/g, "|"))
  })

describe("a setting", () => {
  it.live("is named beside its option in --help, whichever option of serve, watch and rpc it is", () =>
    Effect.forEach(commands, (command) =>
      Effect.map(portmapper([command, "--help"]), ({ stdout }) => {
        const [, own = ""] = stdout.split("\nOptions:\n")
        const elsewhere = ["--print-settings", "--help", "--version", "--completions"]
        const options = optionsIn(own).filter((option) => !elsewhere.includes(option))
        assert.isAbove(options.length, 7)
        assert.deepStrictEqual(
          [...stdout.matchAll(/\[(PORTMAPPER_\w+)\]/g)].map(([, name]) => name),
          options.map(variableOf),
          command
        )
      })
    )
  )

  it.live("is taken from its variable, and --print-settings says so", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(
        yield* printed([], all),
        Object.entries(values).map(([name, value]) => `${name}|${value}|${variableOf(`--${name}`)}`)
      )
    })
  )

  it.live("is taken from the option if both give it, and is the default if the variable is empty", () =>
    Effect.gen(function* () {
      const env = { PORTMAPPER_GRACE: "3s", PORTMAPPER_WATCH: "true", PORTMAPPER_UDP_IDLE: "" }
      const args = ["--grace", "4s", "--watch=false", "--log-level", "error"]
      const lines = yield* printed(args, { ...env, PORTMAPPER_GARCE: "1s", DOCKER_HOST: "tcp://e:1" })
      for (const line of [
        "name|portmapper|default",
        "grace|4s|option",
        "watch|false|option",
        "log-level|error|option",
        "udp-idle|90s|default",
        "mode|auto|default",
        "engine|tcp://e:1|DOCKER_HOST",
        "PORTMAPPER_GARCE is no setting of serve"
      ])
        assert.include(lines, line)
    })
  )

  testNeeding("of the log's format is pretty on a terminal", ["terminal"], () =>
    Effect.gen(function* () {
      const { stdout } = yield* onTerminal(["serve", "--print-settings"], 80)
      assert.match(stdout, /^log-format +pretty +default$/m)
      assert.include(yield* printed([], {}), "log-format|logfmt|default")
    })
  )

  it.live("is refused by the name of its variable, under the option's rule", () =>
    Effect.forEach(
      [
        ["serve", "PORTMAPPER_UDP_IDLE", "5", "expected a duration such as 90s or 5m"],
        ["serve", "PORTMAPPER_WATCH", "maybe", "expected true or false"],
        ["serve", "PORTMAPPER_LOG_FORMAT", "x", "expected one of pretty, json, logfmt"],
        [
          "watch",
          "PORTMAPPER_ENGINE",
          "ssh://me@h",
          "ssh:// is not supported; forward the socket by ssh -L and give its unix:// URL"
        ],
        ["rpc", "PORTMAPPER_ACCEPT_FWMARK", "0", "a mark of 0 is on every packet"]
      ] as const,
      ([command, variable, value, rule]) =>
        Effect.map(portmapper([command], { env: { [variable]: value } }), (ran) =>
          assert.deepStrictEqual(ran, {
            status: 2,
            stdout: "",
            stderr: `portmapper: ${command}: ${variable} "${value}": ${rule}; see: portmapper ${command} --help\n`
          })
        )
    )
  )

  it.live("acts as the option does, the log's format and level too", () =>
    Effect.gen(function* () {
      const input = '{"jsonrpc":"2.0","id":1,"method":"ListPorts","params":{}}\n'
      const env = { PORTMAPPER_MEMORY: "true", PORTMAPPER_LOG_LEVEL: "none" }
      assert.deepStrictEqual(yield* portmapper(["rpc"], { input, env }), {
        status: 0,
        stdout: '{"jsonrpc":"2.0","result":{"Mappings":[]},"id":1}\n',
        stderr: ""
      })
    })
  )
})
