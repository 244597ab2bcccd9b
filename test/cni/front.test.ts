/**
 * The installed shell front: when it hands an execution to the plugin and when to Node. A fake `node` prints its
 * input.
 */
import * as Fs from "node:fs"
import * as Net from "node:net"
import * as Path from "node:path"
import { assert, describe } from "@effect/vitest"
import { Effect, type Scope } from "effect"
import * as fc from "fast-check"
import { socketNamed } from "../../adapters/cni/NetworkConfig.ts"
import { executeHandler, executePath } from "../../adapters/cni/Served.ts"
import { serveUnix } from "../../adapters/docker/PluginSocket.ts"
import { PortMapper } from "../../src/mapper/PortMapper.ts"
import { Driver } from "../../src/protocol/Driver.ts"
import type { Need } from "../lab/Capabilities.ts"
import { testNeeding } from "../lab/describeLab.ts"
import { seed } from "../property/seed.ts"
import {
  bridgeResult,
  cniByFront,
  cniByFrontAt,
  cniFront,
  configText,
  pathOf,
  portMappings
} from "../support/cni.ts"
import { type RunOptions, run } from "../support/command.ts"
import { granting } from "../support/drivers.ts"
import { socketFor, temporaryFolder } from "../support/socket.ts"

const handlers = { [executePath]: executeHandler }
const prevResult = bridgeResult("10.88.0.2/16")
const web = { hostPort: 8080, containerPort: 80 }

const network = (fields: object) => ({
  cniVersion: "1.0.0",
  name: "net",
  prevResult,
  type: "portmapper-cni",
  ...portMappings(web),
  ...fields
})

const script = `#!/bin/sh
printf '%s|%s|' "$*" "$CNI_COMMAND"
exec cat
`

/** A `PATH` with these programs, and the fake `node`. */
const withNode = Effect.fnUntraced(function* (...programs: ReadonlyArray<string>) {
  const path = yield* pathOf("cat", "readlink", ...programs)
  Fs.writeFileSync(Path.join(path, "node"), script, { mode: 0o755 })
  return path
})

const program = Path.join(Path.dirname(cniFront), "main.ts")
const byNode = (command: string, config: object, end = "\n") => ({
  status: 0,
  stdout: `${program}|${command}|${configText(config)}${end}`,
  stderr: ""
})
const published = { status: 0, stdout: `${JSON.stringify(prevResult)}\n`, stderr: "" }

const start = (env: NodeJS.ProcessEnv, config: object, command: ReadonlyArray<string> = [cniFront]) =>
  run(command, {
    input: configText(config),
    env: { CNI_COMMAND: "ADD", CNI_CONTAINERID: "c1", CNI_NETNS: "/ns", CNI_IFNAME: "eth0", ...env }
  } satisfies RunOptions)

/** Sends this to each client and nothing else; returns the number of clients. */
const saying = Effect.fnUntraced(function* (text: string) {
  const socket = Path.join(yield* temporaryFolder, "p.sock")
  let connections = 0
  yield* Effect.acquireRelease(
    Effect.callback<Net.Server>((resume) => {
      const server = Net.createServer((connection) => {
        connections++
        connection.on("error", () => {}).once("data", () => connection.end(text))
      }).listen(socket, () => resume(Effect.succeed(server)))
    }),
    (server) => Effect.sync(() => void server.close())
  )
  return { socket, connections: () => connections }
})

const odd = fc
  .array(
    fc.constantFrom(
      "socket",
      "socket",
      '"socket',
      ":",
      ",",
      "{",
      "}",
      "[",
      "]",
      '"',
      "\\",
      "/a",
      "é",
      "'",
      "$(id)"
    ),
    { maxLength: 4 }
  )
  .map((parts) => parts.join(""))
const somePath = fc.constantFrom("/run/a.sock", "/b c", "/é$(id)%s'", "/", "/x\ty", "relative", "", 5, null)
const fields: fc.Arbitrary<string> = fc.letrec<{ value: string; object: string }>((tie) => ({
  value: fc.oneof(
    { depthSize: "small", withCrossShrink: true },
    fc.oneof(odd, fc.integer(), fc.boolean(), fc.constant(null)).map((value) => JSON.stringify(value)),
    fc.array(tie("value"), { maxLength: 3 }).map((values) => `[${values.join(",")}]`),
    tie("object").map((object) => `{${object}}`)
  ),
  object: fc
    .array(
      fc.oneof(
        fc.tuple(odd, tie("value")).map(([key, value]) => `${JSON.stringify(key)}:${value}`),
        somePath.map((path) => `"socket":${JSON.stringify(path)}`)
      ),
      { maxLength: 4 }
    )
    .map((members) => members.join(","))
})).object
/** JSON in one line, with its keys in any order and repeated at will. */
const configurations = fc
  .tuple(fields, fc.constantFrom("/run/a.sock", "/b c"), fields, fc.boolean())
  .map(([before, path, after, plain]) =>
    [before, `"socket":"${path}"`, plain ? '"type":"portmapper-cni"' : after].filter((part) => part !== "")
  )
  .chain((parts) => fc.subarray(parts, { minLength: 1 }))
  .map((parts) => `{${parts.join(",")}}`)

const head = (status: string, type = "application/json") =>
  `HTTP/1.1 ${status}\r\nContent-Type: ${type}\r\nContent-Length: 3\r\n\r\n{}\n`

const test = (
  title: string,
  body: Effect.Effect<void, unknown, Scope.Scope>,
  needs: ReadonlyArray<Need> = ["curl"]
): void => testNeeding(title, needs, () => Effect.runPromise(Effect.scoped(body)))

describe("the running plugin gets the execution", () => {
  test(
    "by a socket path with spaces and other characters, with any result of any length",
    Effect.gen(function* () {
      const socket = Path.join(yield* temporaryFolder, "a ö'$(b)%s.sock")
      yield* Effect.orDie(Effect.provideService(serveUnix(socket, { handlers }), Driver, granting))
      const cni = cniByFront(yield* pathOf("cat", "curl"))
      const odd = { ...prevResult, odd: ["%s\\n`id`$(id)$HOME\n\"'", "é", "x".repeat(300_000), ""] }
      assert.deepStrictEqual(yield* cni("ADD", network({ prevResult: odd, socket, state: "/s" })), {
        ...published,
        stdout: `${JSON.stringify(odd)}\n`
      })
      const many = Array.from({ length: 1_000 }, (_, index) => ({ ...web, hostPort: 20_000 + index }))
      assert.deepStrictEqual(yield* cni("ADD", network({ ...portMappings(...many), socket })), published)
    })
  )

  test(
    "despite the environment's proxies and options, and without a PATH",
    Effect.gen(function* () {
      const socket = yield* socketFor(granting, { handlers })
      const home = yield* temporaryFolder
      Fs.writeFileSync(Path.join(home, ".curlrc"), "include\n")
      const proxy = "http://127.0.0.1:9"
      const env = { HOME: home, CURL_HOME: home, http_proxy: proxy, all_proxy: proxy, ALL_PROXY: proxy }
      const path = yield* pathOf("cat", "curl")
      assert.deepStrictEqual(yield* start({ ...env, PATH: path }, network({ socket })), published)
      assert.deepStrictEqual(
        yield* start({}, network({ socket }), ["/usr/bin/env", "--unset=PATH", cniFront]),
        published
      )
    })
  )

  test(
    "at the default socket where the configuration names none, if the user owns it",
    Effect.gen(function* () {
      const socket = yield* socketFor(granting, { handlers })
      const asked = network({})
      const usual = cniByFrontAt(yield* withNode("curl"), socket)("ADD", asked)
      assert.deepStrictEqual(yield* usual, published)
      Fs.chownSync(socket, 1, 1)
      assert.deepStrictEqual(yield* usual, byNode("ADD", asked))
    }),
    ["curl", "mounts"]
  )

  test(
    "from other shells than this machine's sh, too",
    Effect.gen(function* () {
      const socket = yield* socketFor(granting, { handlers })
      const path = yield* pathOf("cat", "curl", "bash", "busybox")
      for (const shell of [
        ["bash", "--posix"],
        ["busybox", "sh"]
      ])
        assert.deepStrictEqual(
          yield* start({ PATH: path }, network({ socket }), [...shell, cniFront]),
          published,
          shell[0]
        )
    }),
    ["curl", "bash", "busybox"]
  )
})

describe("Node gets the execution, stdin included", () => {
  test(
    "where there is no curl, or one that is too old",
    Effect.gen(function* () {
      const asked = network({ socket: yield* socketFor(granting, { handlers }) })
      const path = yield* withNode()
      assert.deepStrictEqual(yield* cniByFront(path)("ADD", asked), byNode("ADD", asked))
      Fs.writeFileSync(Path.join(path, "curl"), "#!/bin/sh\necho what? >&2\nexit 2\n", { mode: 0o755 })
      assert.deepStrictEqual(yield* cniByFront(path)("ADD", asked), byNode("ADD", asked))
    })
  )

  test(
    "unless there is no Node either: then it fails as without a plugin",
    Effect.gen(function* () {
      const cni = cniByFrontAt(yield* pathOf("cat", "curl"))
      const details = "start it: systemctl start portmapper, or portmapper serve"
      for (const [command, socket, code, where] of [
        ["ADD", "/nonexistent/é 1.sock", 11, " on /nonexistent/é 1.sock"],
        ["DEL", "/nonexistent\\1", 11, ""],
        ["STATUS", "/nonexistent", 50, " on /nonexistent"]
      ] as const) {
        const { status, stdout } = yield* cni(command, network({ socket }))
        const msg = `no portmapper answers${where}, and node is not in PATH, which would wait for it`
        assert.deepStrictEqual([status, JSON.parse(stdout)], [1, { cniVersion: "1.0.0", code, msg, details }])
      }
    }),
    ["curl", "mounts"]
  )

  test(
    "where no process serves the socket",
    Effect.gen(function* () {
      const cni = cniByFront(yield* withNode("curl"))
      const folder = yield* temporaryFolder
      const dead = Path.join(folder, "dead.sock")
      yield* run([
        process.execPath,
        "-e",
        `net.createServer().listen(process.argv[1], () => process.kill(process.pid, 9))`,
        dead
      ])
      assert.isTrue(Fs.statSync(dead).isSocket())
      for (const socket of [Path.join(folder, "none.sock"), dead, `/${"long/".repeat(30)}p.sock`]) {
        const asked = network({ socket })
        assert.deepStrictEqual(yield* cni("DEL", asked), byNode("DEL", asked))
      }
    })
  )

  const others: ReadonlyArray<readonly [title: string, text: string]> = [
    ["a plugin that does not know the path", head("404 Not Found")],
    ["a plugin that answers everything with 200", head("200 OK")],
    ["a plugin that answers everything with 500", head("500 Internal Server Error")],
    ["a plugin that is stopping", head("503 Service Unavailable")],
    [
      "a server that redirects",
      "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n"
    ],
    ["a server that does not speak HTTP", "SSH-2.0-OpenSSH_9.2\r\n"],
    ["a server that sends nothing", ""],
    [
      "a plugin that breaks off its answer",
      "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.portmapper.cni+json\r\nContent-Length: 9\r\n\r\n{"
    ]
  ]
  for (const [title, text] of others)
    test(
      `where the socket is served by ${title}`,
      Effect.gen(function* () {
        const { socket, connections } = yield* saying(text)
        const asked = network({ socket })
        assert.deepStrictEqual(yield* cniByFront(yield* withNode("curl"))("ADD", asked), byNode("ADD", asked))
        assert.strictEqual(connections(), 1)
      })
    )

  test(
    "where the plugin reads another socket in the configuration than the front did",
    Effect.gen(function* () {
      const socket = yield* socketFor(granting, { handlers })
      const cni = cniByFrontAt(yield* withNode("curl"), socket)
      // The last of equal keys counts, and this is its other spelling.
      const text = configText(network({ socket })).replace(/}$/, ',"sock\\u0065t":"/run/other.sock"}')
      assert.strictEqual((yield* cni("ADD", text)).stdout, `${program}|ADD|${text}\n`)
    }),
    ["curl", "mounts"]
  )

  test(
    "where anything but the configuration itself names a socket, and connects to none",
    Effect.gen(function* () {
      const { connections, socket } = yield* saying(head("200 OK", "application/vnd.portmapper.cni+json"))
      const cni = cniByFrontAt(yield* withNode("curl"))
      const named = { socket }
      for (const fields of [
        { args: { cni: named } },
        { runtimeConfig: named },
        { args: { cni: { ...named, x: "}" } } },
        { args: [named, "}"] },
        { args: `{"socket":"${socket}"}` },
        { zone: named },
        { zone: { zone: named } },
        { zone: { ...named, zone: "}" } },
        { zone: `"socket":"${socket}"}` },
        { zone: { ...named, zone: [{}], zones: "]" } },
        { zone: [1, 2], zones: { ...named, x: "]}" } },
        { 'zone"socket': socket },
        { "zone\\": 'z"socket', 'z,"socket': socket },
        { socket: socket.slice(1) },
        { socket: [socket] }
      ]) {
        const asked = network(fields)
        assert.deepStrictEqual(yield* cni("ADD", asked), byNode("ADD", asked), JSON.stringify(fields))
      }
      const odd = Path.join(Path.dirname(socket), "a\nb")
      Fs.symlinkSync(socket, odd)
      const relative = Path.relative(process.cwd(), socket)
      for (const text of [
        `[${configText({ socket })}]`,
        configText(network({ socket: odd })).replace("a\\nb", "a\nb"),
        configText(network({ socket: "/nonexistent" })).replace(/}$/, `,"socket":"${relative}"}`)
      ])
        assert.strictEqual((yield* cni("ADD", text)).stdout, `${program}|ADD|${text}\n`)
      assert.strictEqual(connections(), 0)
    }),
    ["curl", "mounts"]
  )

  test(
    "where a parameter contains a character that no header can hold",
    Effect.gen(function* () {
      const { connections, socket } = yield* saying(head("200 OK"))
      const cni = cniByFront(yield* withNode("curl"))
      const asked = network({ socket })
      for (const variables of [
        { CNI_CONTAINERID: "c1\r\nCNI-Command: DEL" },
        { CNI_CONTAINERID: "c1\n" },
        { CNI_NETNS: "/run/net ns" },
        { CNI_IFNAME: "eth0 " },
        { CNI_IFNAME: "eth\t0" }
      ])
        assert.deepStrictEqual(yield* cni("ADD", asked, variables), byNode("ADD", asked, ""))
      assert.strictEqual(connections(), 0)
    })
  )

  test(
    "where it gets no command, or gets arguments",
    Effect.gen(function* () {
      const path = yield* withNode("curl")
      const asked = network({ socket: yield* socketFor(granting, { handlers }) })
      const cases = [
        yield* start({ PATH: path, CNI_COMMAND: "" }, asked),
        yield* start({ PATH: path }, asked, ["/usr/bin/env", "--unset=CNI_COMMAND", cniFront]),
        yield* start({ PATH: path }, asked, [cniFront, "--version"]),
        yield* start({ PATH: path }, asked, [cniFront, "a b", ""])
      ]
      assert.deepStrictEqual(
        cases.map(({ stdout }) => stdout.slice(0, stdout.indexOf("{"))),
        [`${program}||`, `${program}||`, `${program} --version|ADD|`, `${program} a b |ADD|`]
      )
    })
  )

  test(
    "by any name, and through any number of links",
    Effect.gen(function* () {
      const folder = Path.join(yield* temporaryFolder, "c n i")
      Fs.mkdirSync(folder)
      Fs.symlinkSync(cniFront, Path.join(folder, "portmapper-cni"))
      Fs.symlinkSync("./portmapper-cni", Path.join(folder, "portmap"))
      const asked = network({ socket: "/nonexistent" })
      const env = { PATH: yield* withNode("curl") }
      const ran = yield* start(env, asked, [Path.join(folder, "portmap")])
      assert.deepStrictEqual(ran, byNode("ADD", asked))
    })
  )
})

test(
  "reads from a configuration only the socket that JSON.parse reads there",
  Effect.gen(function* () {
    const script = Fs.readFileSync(cniFront, "utf8")
    const reading = script.slice(script.indexOf("named= "), script.indexOf("\nsocket="))
    const texts = fc.sample(configurations, { seed, numRuns: 4_000 })
    // The shell writes a newline after each; no path may contain one.
    const each = texts.map((text) => `input='${text.replaceAll("'", "'\\''")}'\nread_it\n`)
    const lines = `read_it() {\n${reading}\nset +f\nprintf '%s\\n' "$named"\n}\n${each.join("")}`
    const { status, stderr, stdout } = yield* run(["sh"], { input: lines })
    assert.deepStrictEqual({ status, stderr }, { status: 0, stderr: "" })
    const found = stdout.split("\n")
    const right = texts.filter((text, index) => found[index] !== "" && found[index] === socketNamed(text))
    const wrong = texts.filter((text, index) => found[index] !== "" && found[index] !== socketNamed(text))
    assert.deepStrictEqual(wrong, [])
    assert.isAbove(right.length, texts.length / 10)
  })
)

test(
  "Node repeats an ADD whose answer is lost, and gets the same answer",
  Effect.gen(function* () {
    const driver = yield* Driver
    const served = yield* socketFor(driver, { handlers })
    // Forwards the first request, and drops its answer.
    const socket = Path.join(yield* temporaryFolder, "p.sock")
    let connections = 0
    yield* Effect.acquireRelease(
      Effect.callback<Net.Server>((resume) => {
        const server = Net.createServer((connection) => {
          const onward = Net.connect(served)
          connection.on("error", () => {}).pipe(onward)
          if (connections++ > 0) onward.pipe(connection)
          else onward.once("data", () => connection.destroy())
        }).listen(socket, () => resume(Effect.succeed(server)))
      }),
      (server) => Effect.sync(() => void server.close())
    )
    const cni = cniByFront(`${Path.dirname(process.execPath)}:${yield* pathOf("cat", "curl", "readlink")}`)
    assert.deepStrictEqual(yield* cni("ADD", network({ socket })), published)
    assert.strictEqual(connections, 2)
    const listed = yield* driver.listPorts ?? Effect.succeed([])
    assert.deepStrictEqual(
      listed.map(({ owner, frontendPort, state }) => `${owner} ${frontendPort} ${state}`),
      ["cni:c1/eth0 8080 live"]
    )
  }).pipe(Effect.provide(PortMapper.layerMemory()))
)
