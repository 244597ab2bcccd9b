import { spawn, spawnSync } from "node:child_process"
import { once } from "node:events"
import * as Fs from "node:fs"
import * as Path from "node:path"
import type { Readable } from "node:stream"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import manifest from "../../package.json" with { type: "json" }
import { testNeeding } from "../lab/describeLab.ts"
import { inShell, portmapper, run } from "../support/command.ts"
import { temporaryFolder } from "../support/folders.ts"

const publishForm = "[HOSTIP:][PORT[-END]]:CONTAINERPORT[-END][/PROTO]"
const unpublishForm = "[HOSTIP:]PORT[-END][:CONTAINERPORT[-END]][/PROTO]"

describe("a usage error", () => {
  it.live("exits 2 with one line that says what to do instead, and nothing on stdout", () =>
    Effect.forEach(
      [
        ["mapp", '"mapp" is no command, did you mean map?; see: portmapper --help'],
        [
          "--completions tcsh",
          '--completions "tcsh": expected one of bash, zsh, fish, powershell, sh, pwsh; see: portmapper --help'
        ],
        [
          "serve --log-format x",
          'serve: --log-format "x": expected one of pretty, json, logfmt; see: portmapper serve --help'
        ],
        [
          "serve --udp-idle 5",
          'serve: --udp-idle "5": expected a duration such as 90s or 5m; see: portmapper serve --help'
        ],
        [
          "serve --name a/b",
          'serve: --name "a/b": expected letters, digits, _, . and -, the first a letter or digit; see: portmapper serve --help'
        ],
        [
          "ls --name ..",
          'ls: --name "..": expected letters, digits, _, . and -, the first a letter or digit; see: portmapper ls --help'
        ],
        ["conform --seed x", 'conform: --seed "x": expected a number; see: portmapper conform --help'],
        [
          "conform --socket /p.sock --runs -1",
          'conform: --runs "-1": expected a number, 0 or more; see: portmapper conform --help'
        ],
        [
          "map -p 80 --to 300.1.1.1",
          'map: --to "300.1.1.1": not an IPv4 or IPv6 address; see: portmapper map --help'
        ],
        [
          "unmap -p 80 --to 300.1.1.1",
          'unmap: --to "300.1.1.1": not an IPv4 or IPv6 address; see: portmapper unmap --help'
        ],
        ["--nope", "--nope is no option of portmapper; see: portmapper --help"],
        ["map", `map: name what to map by -p ${publishForm}; see: portmapper map --help`],
        ["map -p 80:80", "map: name where to by --to ADDRESS or --to CONTAINER; see: portmapper map --help"],
        ["map -p", "map: -p is missing its value; see: portmapper map --help"],
        [
          "map -p 80: --to 10.0.0.1",
          `map: -p "80:": the container port is missing; expected ${publishForm}; see: portmapper map --help`
        ],
        [
          "map -p99999:80 --to 10.0.0.1",
          'map: -p "99999:80": host port "99999": ports are 1 to 65535; see: portmapper map --help'
        ],
        [
          "map -p eth0:80:80 -p 81:81 --to 10.0.0.1",
          "map: -p 81:81: beside an interface each -p names one; map this in another call; see: portmapper map --help"
        ],
        [
          "map -p 80 --to 10.0.0.1 --label portmapper.interface=eth0",
          "map: -p 80: an interface needs an exact host port for each container port: eth0:PORT:80; see: portmapper map --help"
        ],
        [
          "map -p 80 --to /web",
          'map: --to "/web": expected an IPv4 or IPv6 address, or the name or id of a container; see: portmapper map --help'
        ],
        [
          "map -p 80 --to web --to 10.0.0.1",
          "map: --to web: with a container there is no other --to; see: portmapper map --help"
        ],
        [
          "map -p 80 --to 10.0.0.1 --to 10.0.0.2",
          "map: --to 10.0.0.1 --to 10.0.0.2: one IPv4 and one IPv6 address at most; see: portmapper map --help"
        ],
        [
          "map -p 127.0.0.1::80 --to fd00::2",
          "map: -p 127.0.0.1::80: 127.0.0.1 is IPv4, which leads to an IPv4 address only; see: portmapper map --help"
        ],
        [
          "map -p 80 --to 10.0.0.1 --label =x",
          'map: --label "=x": expected KEY=VALUE, with a key; see: portmapper map --help'
        ],
        ["map 8080:80", 'map: "8080:80" is not expected here; see: portmapper map --help'],
        [
          "unmap",
          `unmap: name what to unmap by -p ${unpublishForm}, --all or --stale; see: portmapper unmap --help`
        ],
        ["unmap --all --stale", "unmap: give one of -p, --all and --stale; see: portmapper unmap --help"],
        ["unmap --all -p 80", "unmap: give one of -p, --all and --stale; see: portmapper unmap --help"],
        [
          "unmap -p :80",
          `unmap: -p ":80": the host port is missing; expected ${unpublishForm}; see: portmapper unmap --help`
        ],
        [
          "ls --watch --json",
          "ls: --json prints one document, --watch has no end; give one of them; see: portmapper ls --help"
        ],
        [
          "ls --watc",
          "ls: --watc is no option of portmapper ls, did you mean --watch?; see: portmapper ls --help"
        ],
        ["ls --socket /x --url unix:///x", "ls: give --socket or --url, not both; see: portmapper ls --help"],
        [
          "ls --url ftp://x",
          'ls: --url "ftp://x": expected unix:///PATH, http://HOST:PORT, https://HOST:PORT or tcp://HOST:PORT; see: portmapper ls --help'
        ],
        ["ls --tls-ca x", "ls: the TLS files go with --url; see: portmapper ls --help"],
        [
          "ls --url http://x --tls-ca x",
          'ls: --url "http://x": the TLS files are for https:// or tcp://; see: portmapper ls --help'
        ],
        [
          "ls --url https://x --tls-cert x",
          "ls: --tls-cert and --tls-key go together; see: portmapper ls --help"
        ],
        [
          "reset --socket /nowhere/p.sock --state /nowhere",
          "reset: it asks for confirmation, and stdin is not a terminal; give --yes; see: portmapper reset --help"
        ]
      ] as const,
      ([line, expected]) =>
        Effect.map(portmapper(line.split(" ")), (ran) =>
          assert.deepStrictEqual(ran, { status: 2, stdout: "", stderr: `portmapper: ${expected}\n` }, line)
        ),
      { concurrency: 4 }
    )
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

testNeeding("a signal to npm ends the processes that npm started", ["npm"], () =>
  Effect.runPromise(
    Effect.gen(function* () {
      // The input outlives its reader, and the process group is its own; none of its processes may be left.
      const input = Path.join(yield* temporaryFolder, "input")
      spawnSync("mkfifo", [input])
      const fd = Fs.openSync(input, "r+")
      const child = spawn("npm", ["run", "-s", "portmapper", "--", "rpc", "--memory"], {
        cwd: Path.join(import.meta.dirname, "../.."),
        stdio: [fd, "pipe", "inherit"],
        detached: true
      })
      yield* Effect.addFinalizer(() =>
        Effect.sync(() => {
          Fs.closeSync(fd)
          try {
            process.kill(-(child.pid ?? 0), "SIGKILL")
          } catch {
            // None of them is left.
          }
        })
      )
      Fs.writeSync(fd, '{"jsonrpc":"2.0","id":1,"method":"PortMapper.ListPorts","params":{}}\n')
      yield* Effect.promise(() => once(child.stdio[1] as Readable, "data"))
      child.kill("SIGTERM")
      // Its output ends when the last process that holds the pipe does.
      yield* Effect.promise(() => once(child, "close"))
    }).pipe(Effect.scoped)
  )
)
