/** A plugin with socket activation: the first execution starts it, and it answers that execution. */
import * as Fs from "node:fs"
import * as Path from "node:path"
import { assert, describe } from "@effect/vitest"
import { Effect } from "effect"
import { testNeeding } from "../lab/describeLab.ts"
import { bridgeResult, cniByFront, pathOf, portMappings } from "../support/cni.ts"
import { start } from "../support/process.ts"
import { temporaryFolder } from "../support/socket.ts"

const portmapper = Path.join(import.meta.dirname, "../../adapters/cli/main.ts")

describe("a plugin that systemd starts by its socket", () => {
  testNeeding(
    "serves the first ADD, without Node on the runtime's side",
    ["network", "nft", "curl", "activation"],
    () =>
      Effect.gen(function* () {
        const folder = yield* temporaryFolder
        const socket = Path.join(folder, "p.sock")
        const serve = [process.execPath, portmapper, "serve", "--state", Path.join(folder, "state")]
        const environment = Object.keys(process.env).flatMap((name) => ["--setenv", name])
        yield* start([
          "unshare",
          "--net",
          "systemd-socket-activate",
          "--listen",
          socket,
          ...environment,
          ...serve
        ])
        while (!Fs.existsSync(socket)) yield* Effect.sleep("10 millis")
        const prevResult = bridgeResult("10.88.0.2/16")
        const network = { cniVersion: "1.0.0", name: "net", type: "portmapper-cni", socket, prevResult }
        const asked = { ...network, ...portMappings({ hostPort: 8080, containerPort: 80 }) }
        const cni = cniByFront(yield* pathOf("cat", "curl"))
        const published = { status: 0, stdout: `${JSON.stringify(prevResult)}\n`, stderr: "" }
        const done = { status: 0, stdout: "", stderr: "" }
        assert.isFalse(Fs.existsSync(Path.join(folder, "state")))
        assert.deepStrictEqual(yield* cni("ADD", asked), published)
        assert.deepStrictEqual(yield* cni("CHECK", asked), done)
        assert.deepStrictEqual(yield* cni("DEL", asked), done)
      })
  )
})
