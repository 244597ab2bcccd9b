/**
 * `node --import tsx scripts/picture.ts FILE.png`: makes the picture of the page in README.md. A real plugin publishes
 * ports of containers in namespaces of their own, clients come for a minute and a half, and Chromium looks. Needs
 * root, nftables, iproute2 and chromium.
 */
import { execFileSync } from "node:child_process"
import { Effect, Schedule } from "effect"
import * as Browser from "../test/lab/Browser.ts"
import { labNeeds, lacking, needsText } from "../test/lab/Capabilities.ts"
import * as Lab from "../test/lab/Lab.ts"
import * as Plugin from "../test/lab/Plugin.ts"

interface Published {
  readonly container: string
  readonly frontend: string
  readonly backend: string
  readonly labels?: Record<string, string>
  /** New connections a second, about. */
  readonly rate?: number
}

const shared = { "portmapper.share": "web", "portmapper.allow": "10.0.0.0/8,2001:db8::/32" }

const ports: ReadonlyArray<Published> = [
  { container: "web-1", frontend: "tcp 0.0.0.0:8080", backend: "172.31.0.2:80", labels: shared, rate: 40 },
  { container: "web-2", frontend: "tcp 0.0.0.0:8080", backend: "172.31.0.3:80", labels: shared },
  { container: "web-3", frontend: "tcp 0.0.0.0:8080", backend: "172.31.0.4:80", labels: shared },
  { container: "gitea", frontend: "tcp 0.0.0.0:2222", backend: "172.31.0.5:80" },
  { container: "gitea", frontend: "tcp 0.0.0.0:3000", backend: "172.31.0.5:80", rate: 9 },
  { container: "grafana", frontend: "tcp 127.0.0.1:3001", backend: "172.31.0.6:80" },
  { container: "postgres", frontend: "tcp 0.0.0.0:5432", backend: "172.31.0.7:80" },
  { container: "registry", frontend: "tcp 0.0.0.0:5000", backend: "172.31.0.8:80", rate: 3 },
  {
    ...{ container: "mail", frontend: "tcp 0.0.0.0:25", backend: "172.31.0.9:80", rate: 2 },
    labels: { "portmapper.mode": "proxy", "portmapper.proxy-protocol": "v2" }
  },
  { container: "mqtt", frontend: "tcp 0.0.0.0:1883", backend: "172.31.0.10:80", rate: 14 },
  { container: "mqtt", frontend: "tcp [::]:1883", backend: "[fd66::10]:80" },
  { container: "dns", frontend: "udp 0.0.0.0:53", backend: "172.31.0.11:53" },
  { container: "dns", frontend: "udp [::]:53", backend: "[fd66::11]:53" },
  { container: "minio", frontend: "tcp 0.0.0.0:9000", backend: "172.31.0.12:80", rate: 6 },
  { container: "minio", frontend: "tcp 0.0.0.0:9001", backend: "172.31.0.12:80" }
]

const containers = Object.fromEntries(
  Array.from({ length: 11 }, (_, at) => [
    `c${at + 2}`,
    { ipv4: `172.31.0.${at + 2}`, ipv6: `fd66::${at + 2}` }
  ])
)

const picture = Effect.fn("picture")(function* (file: string) {
  const lab = yield* Lab.make({
    network: { ipv4: "172.31.0.1/24", ipv6: "fd66::1/64", containers },
    hostSysctls: { "net.netfilter.nf_conntrack_acct": "1" }
  })
  const { host, client } = lab
  for (const name of Object.keys(containers))
    yield* lab.get(name).agent.echo({ protocol: "tcp", host: "0.0.0.0", port: 80 })
  const named = ["unshare", "--uts", "sh", "-c", 'hostname edge-fra-2; exec "$@"', "sh"]
  const options = { wrapper: named, arguments: ["--page", "127.0.0.1:9080"] }
  const first = yield* Plugin.start(host, options)
  for (const [at, { container, frontend, backend, labels }] of ports.entries()) {
    const id = `${at}`.padStart(12, "0")
    yield* first.map([`${frontend} ${backend}`], { "portmapper.container": `${container}/${id}`, ...labels })
  }
  // The next start finds the port of one taken.
  yield* first.process.kill("SIGTERM")
  yield* first.process.wait()
  yield* host.agent.hold({ protocol: "tcp", host: "0.0.0.0", port: 5432 })
  yield* Plugin.start(host, { ...options, folder: first.folder })
  const browser = yield* Browser.start(host)
  const { step } = yield* browser.open("http://127.0.0.1:9080/#port=tcp+0.0.0.0:8080+172.31.0.2:80", {
    viewport: { width: 1400, height: 840 }
  })
  for (const { frontend, rate = 0 } of ports) {
    const port = Number(frontend.split(":").at(-1))
    if (rate === 0) continue
    const knock = Effect.suspend(() => {
      const pause = (1000 / rate) * (0.4 + 1.2 * Math.random())
      return Effect.andThen(
        Effect.ignore(client.agent.tcp({ host: "10.99.0.1", port, payload: "x".repeat(20_000) })),
        Effect.sleep(pause)
      )
    })
    yield* Effect.forkScoped(Effect.repeat(knock, Schedule.forever))
  }
  yield* Effect.sleep("95 seconds")
  yield* step((page) => page.screenshot({ path: file }))
})

const [file] = process.argv.slice(2)
const lacks = lacking([...labNeeds, "chromium"])
if (file === undefined || lacks.length > 0) {
  process.stderr.write(`picture: ${file === undefined ? "expected FILE.png" : needsText(lacks)}\n`)
  process.exit(file === undefined ? 2 : 1)
}
await Effect.runPromise(Effect.scoped(picture(file)))
execFileSync("pngquant", ["--force", "--skip-if-larger", "--output", file, file], { stdio: "inherit" })
