/** `examples/compose.yaml`, by compose itself on a real Engine: scaled, watched, and evenly used. */
import { join } from "node:path"
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { docker, startEngine } from "../lab/Containers.ts"
import type { Dockerd } from "../lab/Dockerd.ts"
import { describeLab } from "../lab/describeLab.ts"
import { check } from "../lab/Process.ts"
import { tally } from "../lab/Tally.ts"
import { portmapper } from "../support/command.ts"
import { until } from "../support/until.ts"
import { root } from "./packaging.ts"

const file = join(root, "examples/compose.yaml")

/** In place of the image that the example names: it serves its container's name, and its `curl` reads that. */
const prepareNginx = Effect.fnUntraced(function* (dockerd: Dockerd) {
  const curl = "printf '#!/bin/sh\\nexec cat /www/index.html\\n' > /bin/curl; /bin/busybox chmod +x /bin/curl"
  yield* docker(dockerd, ["run", "--name=nginx", "busybox", "/bin/sh", "-c", curl])
  const serve = "/bin/busybox hostname > /www/index.html; exec httpd -f -p 80 -h /www"
  yield* docker(dockerd, ["commit", `--change=CMD ["/bin/sh","-c","${serve}"]`, "nginx", "nginx"])
  yield* docker(dockerd, ["rm", "nginx"])
})

describeLab("the example for compose", ["dockerd", "busybox", "iptables", "compose"], () => {
  it.live("shares one port among as many containers as it is scaled to", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { client, dockerd, watch } = yield* startEngine()
        yield* prepareNginx(dockerd)
        const { socket } = yield* watch()
        const up = (replicas: number) =>
          check(
            "docker-compose",
            [
              ...["--project-name", "shop", "--file", file],
              ...["up", "--detach", "--no-color", "--scale", `web=${replicas}`]
            ],
            { env: { DOCKER_HOST: `unix://${dockerd.socket}` }, timeoutMillis: 120_000 }
          )
        const backends = Effect.map(portmapper(["ls", "--json", "--socket", socket]), ({ stdout }) =>
          (JSON.parse(stdout).Mappings as ReadonlyArray<Backend>).filter(
            ({ FrontendIP, State }) => FrontendIP === "0.0.0.0" && State === "live"
          )
        )
        const live = (count: number) => until(backends, ({ length }) => length === count)

        yield* up(3)
        for (const { Service, Container, FrontendPort } of yield* live(3)) {
          assert.match(Container, /^shop_web_[123]\/[0-9a-f]{12}$/)
          assert.deepStrictEqual([Service, FrontendPort], ["shop/web", 8080])
        }
        const counts = Object.values(yield* tally(client, 8080, 30_000))
        assert.lengthOf(counts, 3)
        // 64 slots make 22, 21 and 21; the rest is chance, of which this allows five standard deviations.
        const [least = 0, , most = 0] = counts.sort((a, b) => a - b)
        assert.isAbove(least, (30_000 * 21) / 64 - 410)
        assert.isBelow(most, (30_000 * 22) / 64 + 410)
        console.log(`30,000 connections: ${counts.join(", ")}`)

        yield* up(5)
        yield* live(5)
        assert.lengthOf(Object.keys(yield* tally(client, 8080, 400)), 5)
        yield* up(1)
        yield* live(1)
        assert.lengthOf(Object.keys(yield* tally(client, 8080, 40)), 1)
      })
    )
  )
})

interface Backend {
  readonly FrontendIP: string
  readonly FrontendPort: number
  readonly State: string
  readonly Service: string
  readonly Container: string
}
