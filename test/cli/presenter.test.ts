import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import manifest from "../../package.json" with { type: "json" }
import { portmapper } from "../support/command.ts"
import { areWrongUsage } from "./asking.ts"

describe("a usage error", () => {
  it.live("exits 2 with one line that says what to do instead, and nothing on stdout", () =>
    areWrongUsage([
      ["mapp", '"mapp" is no command, did you mean map?; see: portmapper --help'],
      [
        "--completions tcsh",
        '--completions "tcsh": expected one of bash, zsh, fish, powershell, sh, pwsh; see: portmapper --help'
      ],
      [
        "serve --log-format x",
        'serve: --log-format "x": expected one of pretty, json, logfmt; see: portmapper serve --help'
      ],
      ["conform --seed x", 'conform: --seed "x": expected a number; see: portmapper conform --help'],
      [
        "conform --socket /p.sock --runs -1",
        'conform: --runs "-1": expected a number, 0 or more; see: portmapper conform --help'
      ],
      ["--nope", "--nope is no option of portmapper; see: portmapper --help"],
      ["map -p", "map: -p is missing its value; see: portmapper map --help"],
      [
        "ls --watc",
        "ls: --watc is no option of portmapper ls, did you mean --watch?; see: portmapper ls --help"
      ]
    ])
  )

  it.live("of no command at all prints the commands, on stderr", () =>
    Effect.map(portmapper([]), ({ status, stdout, stderr }) => {
      assert.deepStrictEqual([status, stdout], [2, ""])
      assert.match(stderr, /^Usage: portmapper COMMAND \[options\]\n/)
    })
  )
})

describe("help", () => {
  it.live("prints each command's options in 80 columns, with examples", () =>
    Effect.forEach(
      ["map", "unmap", "ls", "reset", "serve", "doctor"],
      (command) =>
        Effect.map(portmapper([command, "--help"]), ({ status, stdout, stderr }) => {
          assert.deepStrictEqual([status, stderr], [0, ""])
          assert.match(stdout, new RegExp(`^Usage: portmapper ${command} \\[options\\]\n\n`))
          const [help = "", examples] = stdout.split("\nExamples:\n")
          for (const line of help.split("\n")) assert.isAtMost(line.length, 80, line)
          if (["map", "unmap", "ls", "reset"].includes(command))
            assert.match(examples ?? "", new RegExp(`^  portmapper ${command}`, "m"))
        }),
      { concurrency: 4 }
    )
  )

  it.live("prints the version", () =>
    Effect.map(portmapper(["--version"]), (ran) =>
      assert.deepStrictEqual(ran, { status: 0, stdout: `portmapper ${manifest.version}\n`, stderr: "" })
    )
  )
})
