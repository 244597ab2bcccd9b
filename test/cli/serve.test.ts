import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { portmapper } from "../support/command.ts"
import { areWrongUsage } from "./asking.ts"

describe("serve", () => {
  it.live("refuses labels of images without a watch, and an Engine that it can't reach", () =>
    areWrongUsage([
      ["serve --trust-image-labels", "--trust-image-labels: of no use without --watch; give it as well"],
      [
        "serve --watch --engine ssh://h",
        'serve: --engine "ssh://h": ssh:// is not supported; forward the socket by ssh -L and give its unix:// URL; see: portmapper serve --help'
      ]
    ])
  )

  it.live("refuses a variable of Docker's that it can't follow, under its name", () =>
    Effect.map(portmapper(["serve", "--watch"], { env: { DOCKER_HOST: "ssh://h" } }), (ran) =>
      assert.deepStrictEqual(ran, {
        status: 2,
        stdout: "",
        stderr:
          'portmapper: DOCKER_HOST "ssh://h": ssh:// is not supported; forward the socket by ssh -L and give its unix:// URL\n'
      })
    )
  )

  it.live("prints its settings also where they are refused, and starts nothing", () =>
    Effect.gen(function* () {
      const { status, stderr, stdout } = yield* portmapper(["serve", "--print-settings", "--spec-dir", "/x"])
      assert.deepStrictEqual(
        [status, stderr],
        [2, "portmapper: --spec-dir: of no use without --tcp HOST:PORT; give it as well\n"]
      )
      assert.match(stdout, /^spec-dir +\/x +option$/m)
    })
  )
})
