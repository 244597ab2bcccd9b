/** What the harness prints of a run replays it exactly. */
import * as Fs from "node:fs"
import * as Path from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import fc from "fast-check"
import {
  asJsonRpc,
  asTypeScript,
  explore,
  type ModelHost,
  memoryTarget,
  type Outcome,
  rpcCommand,
  run,
  scripts,
  violationText
} from "../../src/testing/index.ts"
import { portmapper, run as runCommand } from "../support/command.ts"
import { temporaryFolder } from "../support/folders.ts"
import { memoryTarget as forgetful } from "./forgetful.ts"
import { hosts } from "./hosts.ts"
import { seed } from "./seed.ts"

const host: ModelHost = {
  ephemeral: { range: { first: 40000, last: 40007 }, reserved: [] },
  capabilities: { ...hosts["nat"]?.capabilities, defaultMode: "nat" } as ModelHost["capabilities"]
}

describe("the harness's output", () => {
  it.live("is a program that Node runs, and that finds the same fault", () =>
    Effect.gen(function* () {
      const found = explore({ seed: 7, runs: 500, host, target: () => forgetful(host) })
      if (found === undefined) return assert.fail("the fault was not found")
      const program = Path.join(yield* temporaryFolder, "found.ts")
      const entry = Path.join(import.meta.dirname, "forgetful.ts")
      Fs.writeFileSync(program, asTypeScript(found, host, entry))
      assert.deepStrictEqual(yield* runCommand([process.execPath, program]), {
        status: 1,
        stdout: `${violationText(found.violation, found.script)}\n`,
        stderr: ""
      })
      // With the correct mapper the same script finds nothing.
      const right = Path.join(import.meta.dirname, "../../src/testing/index.ts")
      Fs.writeFileSync(program, asTypeScript(found, host, right))
      assert.deepStrictEqual(yield* runCommand([process.execPath, program]), {
        status: 0,
        stdout: "nothing is wrong\n",
        stderr: ""
      })
    }).pipe(Effect.scoped)
  )

  for (const mode of ["nat", "engine", "proxy", "routed"] as const)
    it.live(`has JSON-RPC messages with the same answers from portmapper rpc --memory: ${mode}`, () =>
      Effect.gen(function* () {
        const of: ModelHost = { ...host, capabilities: { ...host.capabilities, defaultMode: mode } }
        const calls = callsOf(of)
        assert.isAbove(calls.length, 100)
        const [, ...args] = rpcCommand(of).split(" ")
        const { status, stdout } = yield* portmapper(args, { input: `${asJsonRpc({ calls })}\n` })
        const answers = stdout
          .trim()
          .split("\n")
          .map((line) => JSON.parse(line) as RpcAnswer)
        assert.strictEqual(status, 0)
        assert.deepStrictEqual(
          answers.map(({ result, error }) => timeless(error?.message ?? JSON.stringify(result))),
          calls.map(({ ended: { outcome } }) => timeless(toldOf(outcome)))
        )
      })
    )
})

interface RpcAnswer {
  readonly result?: unknown
  readonly error?: { readonly message: string }
}

/** All calls of one long script, and their outcomes. */
const callsOf = (of: ModelHost) => {
  const [script = []] = fc.sample(scripts({ reach: "callers", maxSteps: 200, minSteps: 150 }), {
    seed,
    numRuns: 1
  })
  const calls: Array<NonNullable<ReturnType<typeof run>>["calls"][number]> = []
  const target = memoryTarget(of)
  const recording = {
    ...target,
    call: (...[call, fate]: Parameters<typeof target.call>) => {
      const ended = target.call(call, fate)
      calls.push({ call, fate, ended })
      return ended
    }
  }
  assert.isUndefined(run(script, of, recording))
  return calls
}

const toldOf = (outcome: Outcome): string => {
  switch (outcome._tag) {
    case "Answered":
      return JSON.stringify(outcome.answer)
    case "Refused":
      return outcome.text
    default:
      return outcome._tag
  }
}

/** The harness's clock starts at the Unix epoch. */
const timeless = (text: string): string => text.replaceAll(/since \d{4}-[^;]*Z/g, "since then")
