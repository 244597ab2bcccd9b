import * as Fs from "node:fs"
import * as Path from "node:path"
import { assert, describe } from "@effect/vitest"
import { Effect } from "effect"
import { testNeeding } from "../lab/describeLab.ts"
import { inShell, portmapper, run } from "../support/command.ts"
import { temporaryFolder } from "../support/folders.ts"

describe("completions", () => {
  testNeeding("complete values that only the host knows in fish", ["fish"], () =>
    Effect.gen(function* () {
      const file = Path.join(yield* temporaryFolder, "portmapper.fish")
      Fs.writeFileSync(file, yield* script("fish"))
      const asking = `source ${file}
        function docker; printf 'web\\ndb\\n'; end
        function portmapper; printf 'FRONTEND\\n0.0.0.0:8080/tcp  172.17.0.2:80\\n'; end
        complete -C 'portmapper map --to '
        complete -C 'portmapper unmap -p '`
      const { stdout } = yield* run(["fish", "--no-config", "-c", asking])
      assert.deepStrictEqual(
        stdout.split("\n").map((line) => line.split("\t")[0]),
        ["db", "web", "0.0.0.0:8080/tcp", ""]
      )
    })
  )

  const script = (shell: string) => Effect.map(portmapper(["--completions", shell]), ({ stdout }) => stdout)
  const checked = (shell: "bash" | "zsh" | "fish", ...args: ReadonlyArray<string>) =>
    testNeeding(`are ${shell} that ${shell} can read`, [shell], () =>
      Effect.runPromise(
        Effect.gen(function* () {
          const file = Path.join(yield* temporaryFolder, `completions.${shell}`)
          Fs.writeFileSync(file, yield* script(shell))
          const ran = yield* run([shell, ...args, file])
          assert.deepStrictEqual(ran, { status: 0, stdout: "", stderr: "" })
        }).pipe(Effect.scoped)
      )
    )
  checked("bash", "-n")
  checked("zsh", "-n")
  checked("fish", "--no-execute")

  testNeeding("complete commands, options and their values in bash", ["bash"], () =>
    Effect.gen(function* () {
      const complete = (line: string) => {
        const words = line.split(" ")
        return `COMP_WORDS=(${words.map((word) => `'${word}'`).join(" ")}); COMP_CWORD=${words.length - 1}; COMP_LINE='${line}'; COMP_POINT=${line.length}; COMPREPLY=(); _portmapper portmapper '${words.at(-1)}' '${words.at(-2)}'; echo "\${COMPREPLY[*]}"`
      }
      const { stdout, stderr } = yield* inShell(
        [
          'eval "$(portmapper --completions bash)"',
          complete("portmapper "),
          complete("portmapper un"),
          complete("portmapper ls --w"),
          complete("portmapper unmap --st"),
          complete("portmapper serve --log-format "),
          complete("portmapper serve --mode "),
          complete("portmapper map --to 10.0.0.1 --lab"),
          'docker() { [ "$1 $2" = "ps --format" ] && echo web && echo db; }',
          complete("portmapper map --to "),
          'row() { echo "$1  172.17.0.2:80  nat  $2"; }',
          'portmapper() { [ "$1" = ls ] && echo FRONTEND && row 0.0.0.0:8080/tcp portmapper.publish=8080:80 && for at in 10.0.0.1 [fd00::1]; do row $at:53/udp portmapper.to=172.17.0.2,portmapper.publish=eth0:53:53/udp; done; }',
          complete("portmapper unmap -p ")
        ].join("\n")
      )
      assert.strictEqual(stderr, "")
      const [commands = "", ...rest] = stdout.split("\n")
      for (const command of ["serve", "map", "unmap", "ls", "doctor", "reset"])
        assert.include(commands.split(" "), command)
      assert.deepStrictEqual(rest, [
        ...[
          "unmap undrain",
          "--watch",
          "--stale",
          "pretty json logfmt",
          "auto nat engine proxy routed",
          "--label"
        ],
        ...["web db", "0.0.0.0:8080/tcp eth0:53:53/udp", ""]
      ])
    })
  )
})
