/** The container image on a real Engine, started as the compose files in `deploy/` say. */
import { execFileSync } from "node:child_process"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import manifest from "../../package.json" with { type: "json" }
import { docker, engineLab, prepareImages, runContainer, servedSoon } from "../lab/Containers.ts"
import * as Dockerd from "../lab/Dockerd.ts"
import { describeLab } from "../lab/describeLab.ts"
import { contents } from "../lab/Nft.ts"
import { request } from "../support/http.ts"
import { until } from "../support/until.ts"
import { makePackage, root } from "./packaging.ts"

const outside = "10.99.0.1"

interface Service {
  readonly image: string
  readonly command: ReadonlyArray<string>
  readonly network_mode: string
  readonly cap_drop: ReadonlyArray<string>
  readonly cap_add: ReadonlyArray<string>
  readonly security_opt: ReadonlyArray<string>
  readonly tmpfs: ReadonlyArray<string>
  readonly ulimits: { readonly nofile: number }
  readonly volumes: ReadonlyArray<string>
}

/** The service `portmapper` of a compose file; compose itself is no part of Debian's Engine. */
const service = (file: string): Partial<Service> => {
  const read = `
import json, sys, yaml
yaml.SafeLoader.add_constructor("!override", lambda loader, node: loader.construct_sequence(node))
print(json.dumps(yaml.safe_load(open(sys.argv[1]))["services"]["portmapper"]))`
  return JSON.parse(execFileSync("python3", ["-c", read, join(root, "deploy", file)], { encoding: "utf8" }))
}

/** As compose runs it; `from` replaces sources of volumes. */
const runArguments = (of: Service, from: Readonly<Record<string, string>>): ReadonlyArray<string> => [
  ...["run", "--detach", "--name=portmapper", `--network=${of.network_mode}`, "--read-only"],
  ...of.cap_drop.map((name) => `--cap-drop=${name}`),
  ...of.cap_add.map((name) => `--cap-add=${name}`),
  ...of.security_opt.map((text) => `--security-opt=${text}`),
  ...of.tmpfs.map((text) => `--tmpfs=${text}`),
  // Without CAP_SYS_RESOURCE an Engine can't raise it further.
  `--ulimit=nofile=${Math.min(of.ulimits.nofile, openFiles())}`,
  ...of.volumes.map((text) => {
    const [source = "", target] = text.split(":")
    return `--volume=${from[source] ?? source}:${target}`
  }),
  of.image,
  ...of.command
]

const openFiles = () =>
  Number(/^Max open files +\d+ +(\d+)/m.exec(readFileSync("/proc/self/limits", "latin1"))?.[1])

let built: string | undefined
const image = (): string => {
  built ??= makePackage("image")
  return built
}

const engine = Effect.gen(function* () {
  const { host, client } = yield* engineLab
  const dockerd = yield* Dockerd.start(host, { bridge: true, iptables: true })
  yield* host.check("iptables", ["-P", "FORWARD", "DROP"])
  yield* docker(dockerd, ["load", "--input", image()])
  yield* prepareImages(dockerd)
  return { host, client, dockerd }
})

const isHealthy = (dockerd: Dockerd.Dockerd) =>
  Effect.map(
    docker(dockerd, ["inspect", "--format={{.State.Health.Status}}", "portmapper"]),
    (text) => text.trim() === "healthy"
  )

describeLab(
  "the image",
  ["dockerd", "busybox", "iptables", "mmdebstrap", "strip", "npm", "python", "haproxy"],
  () => {
    it.live("publishes labelled containers with the rights that compose.yaml gives it, and no more", () =>
      Effect.gen(function* () {
        const { host, client, dockerd } = yield* engine
        const composed = service("compose.yaml") as Service
        assert.strictEqual(composed.image, `portmapper:${manifest.version}`)
        const run = runArguments(composed, { "/var/run/docker.sock": dockerd.socket })
        yield* docker(dockerd, run)
        yield* until(isHealthy(dockerd))
        yield* runContainer(dockerd, "web", { labels: { "portmapper.publish": "8080:80" } })
        yield* runContainer(dockerd, "relayed", {
          labels: { "portmapper.publish": "8081:80", "portmapper.mode": "proxy" }
        })
        assert.strictEqual(yield* servedSoon(client, outside, 8080, "web"), "web")
        assert.strictEqual(yield* servedSoon(client, outside, 8081, "relayed"), "relayed")
        const listed = yield* docker(dockerd, ["exec", "portmapper", "portmapper", "ls"])
        assert.match(listed, /0\.0\.0\.0:8080\/tcp .*172\.\d+\.0\.\d+:80 .*nat/)
        // What it published outlives it, and its record is there for the next one.
        yield* docker(dockerd, ["rm", "--force", "portmapper"])
        assert.include(Object.keys(yield* contents(host)), "any4")
        assert.strictEqual(yield* servedSoon(client, outside, 8080, "web"), "web")
        yield* docker(dockerd, run)
        yield* until(isHealthy(dockerd))
        const logged = yield* dockerd.docker(["logs", "portmapper"])
        assert.match(logged.stderr, /restored 4 mappings, 0 unconfirmed, 0 conflicted/)
        assert.strictEqual(yield* servedSoon(client, outside, 8081, "relayed"), "relayed")
      })
    )

    it.live("publishes them behind the filter of compose.filtered.yaml, which only answers questions", () =>
      Effect.gen(function* () {
        const { host, client, dockerd } = yield* engine
        const filtered = join(dockerd.pluginFolder, "../engine")
        const socket = join(filtered, "docker.sock")
        yield* host.check("mkdir", [filtered])
        const proxy = yield* host.spawn("haproxy", ["-f", join(root, "deploy/engine-filter.cfg")], {
          env: { FILTERED: socket, ENGINE: dockerd.socket }
        })
        const ask = (path: string, method: string) =>
          Effect.map(
            Effect.tryPromise(() => request(socket, path, "", { method })),
            ({ status }) => status
          )
        yield* until(
          Effect.match(ask("/_ping", "GET"), {
            onFailure: () => false,
            onSuccess: (status) => status === 200
          })
        )
        assert.strictEqual(yield* ask("/v1.40/info", "GET"), 200)
        for (const [method, path] of [
          ["POST", "/containers/create"],
          ["POST", "/v1.40/containers/x/start"],
          ["DELETE", "/v1.40/containers/x"],
          ["GET", "/v1.40/containers/x/export"],
          ["GET", "/v1.40/secrets"],
          ["POST", "/v1.40/info"]
        ] as const)
          assert.strictEqual(yield* ask(path, method), 403, `${method} ${path}`)

        const composed = { ...service("compose.yaml"), ...service("compose.filtered.yaml") } as Service
        yield* docker(dockerd, runArguments(composed, { engine: filtered }))
        yield* until(isHealthy(dockerd))
        yield* runContainer(dockerd, "web", { labels: { "portmapper.publish": "8080:80" } })
        assert.strictEqual(yield* servedSoon(client, outside, 8080, "web"), "web")
        assert.strictEqual(proxy.lines("stderr").join("\n").includes("ALERT"), false)
      })
    )
  }
)

it("its rights in compose.yaml are those of the unit", () => {
  const unit = readFileSync(join(root, "deploy/portmapper.service"), "utf8")
  const bounds = /^CapabilityBoundingSet=(.*)$/m.exec(unit)?.[1]?.split(" ")
  assert.deepStrictEqual(
    service("compose.yaml").cap_add?.map((name) => `CAP_${name}`),
    bounds
  )
})
