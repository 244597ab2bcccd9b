import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { testNeeding } from "../lab/describeLab.ts"
import { onTerminal, portmapper } from "../support/command.ts"
import { areWrongUsage } from "./asking.ts"

/** A command that asks, and then finds no etcd. */
const args = ["cluster", "release", "--cluster", "http://127.0.0.1:1", "--host", "b"]
const goesOn = "releasing host b: etcd at http://127.0.0.1:1: no process is listening there"
const refused = "cluster release refused: nothing was released"

describe("a command that takes something away", () => {
  testNeeding("asks on a terminal, and takes any answer but yes for no", ["terminal"], () =>
    Effect.forEach(
      [
        ...["n\n", "\n", "nope\n", "yess\n", "\u0004"].map((input) => [input, refused] as const),
        ...["y\n", " Yes\n"].map((input) => [input, goesOn] as const)
      ],
      ([input, outcome]) =>
        Effect.map(onTerminal(args, 200, { input }), ({ status, stdout }) => {
          assert.strictEqual(status, 1, stdout)
          assert.include(stdout, "Release it? [y/N] ")
          assert.isTrue(stdout.endsWith(`portmapper: ${outcome}\n`), `${JSON.stringify(input)}: ${stdout}`)
        }),
      { concurrency: 3, discard: true }
    )
  )

  it.live("asks nobody with --yes, and is refused where nobody can answer", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* portmapper([...args, "--yes"]), {
        status: 1,
        stdout: "",
        stderr: `portmapper: ${goesOn}\n`
      })
      yield* areWrongUsage([
        [
          args.join(" "),
          "cluster release: it asks for confirmation, and stdin is not a terminal; give --yes; see: portmapper cluster release --help"
        ]
      ])
    })
  )
})
