/** The three namespaces of the demo, the processes in them, and the commands that run there. */
import { type ChildProcess, execFile, spawn, spawnSync } from "node:child_process"
import { once } from "node:events"
import * as Path from "node:path"
import { createInterface } from "node:readline"
import { promisify } from "node:util"

const program = Path.join(import.meta.dirname, "../../dist/bin/portmapper.js")
const run = promisify(execFile)

/** The missing requirements of the demo, as text, each with its remedy. */
export const lacking = (): ReadonlyArray<string> => {
  const has = (name: string, option: string) => spawnSync(name, [option], { stdio: "ignore" }).status === 0
  if (process.platform !== "linux") return ["Linux"]
  return [
    ...(process.getuid?.() === 0 ? [] : ["root (sudo npm run demo)"]),
    ...(has("ip", "-V") ? [] : ["ip (on Debian: apt install iproute2)"]),
    ...(has("nft", "--version") ? [] : ["nft (on Debian: apt install nftables)"])
  ]
}

type Role = "host" | "client" | "container"

const page = `
require("node:http").createServer((request, response) => {
  const from = request.socket.remoteAddress
  response.end("Hello from the container. You come from " + from + ".\\n")
}).listen(80, "172.31.0.2", () => console.log("ready"))
`

/** Prints the text of a page, or why there is none. */
const fetching = `
fetch(process.argv[1]).then(
  async (response) => console.log((await response.text()).trimEnd()),
  ({ cause }) => { console.log(cause.code); process.exitCode = 1 }
)
`

export class Stage {
  readonly #socket: string
  readonly #state: string
  readonly #children: Array<ChildProcess> = []

  constructor(folder: string) {
    this.#socket = Path.join(folder, "portmapper.sock")
    this.#state = Path.join(folder, "state")
  }

  async build(): Promise<void> {
    const [host, client, container] = [this.#name("host"), this.#name("client"), this.#name("container")]
    await run("sh", [
      "-ec",
      `
      ip netns add ${host}; ip netns add ${client}; ip netns add ${container}
      ip -n ${host} link add wire type veth peer name eth0 netns ${client}
      ip -n ${host} link add box type veth peer name eth0 netns ${container}
      ip -n ${host} address add 10.99.0.1/24 dev wire; ip -n ${client} address add 10.99.0.2/24 dev eth0
      ip -n ${host} address add 172.31.0.1/24 dev box; ip -n ${container} address add 172.31.0.2/24 dev eth0
      for link in "${host} lo" "${host} wire" "${host} box" "${client} eth0" "${container} eth0"; do
        ip -n "\${link% *}" link set "\${link#* }" up
      done
      ip -n ${container} route add default via 172.31.0.1
      ip netns exec ${host} sh -ec 'echo 1 >/proc/sys/net/ipv4/ip_forward'
      ip netns exec ${host} sh -c 'echo 1 >/proc/sys/net/netfilter/nf_conntrack_acct' 2>/dev/null || true
      `
    ])
    await this.#start("container", ["-e", page], "stdout", /^ready/)
  }

  /** Returns its output up to the line that says it serves. */
  serve(): Promise<string> {
    return this.#start("host", [program, "serve", ...this.#ownPaths()], "stderr", /^listening on/)
  }

  async portmapper(line: string): Promise<string> {
    const { stdout } = await this.#in("host", process.execPath, [
      program,
      ...line.split(" "),
      "--socket",
      this.#socket
    ])
    return stdout
  }

  async fetch(): Promise<string> {
    const { stdout } = await this.#in("client", process.execPath, ["-e", fetching, "http://10.99.0.1:8080/"])
    return stdout
  }

  async refusal(): Promise<string> {
    const failure = await this.fetch().then(
      () => undefined,
      (error: { readonly stdout: string }) => error.stdout.trim()
    )
    if (failure !== "ECONNREFUSED")
      throw new Error(`the client was not refused after unmap, but got ${failure ?? "an answer"}`)
    return "Connection refused"
  }

  async element(map: string): Promise<string> {
    const { stdout } = await this.#in("host", "nft", ["list", "map", "inet", "portmapper", map])
    return stdout
  }

  /** Call it once, in any state. */
  end(): void {
    for (const child of this.#children) child.kill("SIGKILL")
    for (const role of ["host", "client", "container"] as const)
      spawnSync("ip", ["netns", "del", this.#name(role)], { stdio: "ignore" })
  }

  #name(role: Role): string {
    return `portmapper-demo-${process.pid}-${role}`
  }

  #ownPaths(): ReadonlyArray<string> {
    return ["--socket", this.#socket, "--state", this.#state]
  }

  #in(role: Role, command: string, args: ReadonlyArray<string>) {
    return run("ip", ["netns", "exec", this.#name(role), command, ...args])
  }

  /** Resolves with all lines up to the one that reports that it is ready. */
  async #start(
    role: Role,
    args: ReadonlyArray<string>,
    on: "stdout" | "stderr",
    ready: RegExp
  ): Promise<string> {
    const child = spawn("ip", ["netns", "exec", this.#name(role), process.execPath, ...args], {
      stdio: "pipe"
    })
    this.#children.push(child)
    await once(child, "spawn")
    const lines: Array<string> = []
    for await (const line of createInterface(child[on])) {
      lines.push(line)
      if (ready.test(line)) return lines.join("\n")
    }
    throw new Error(`the ${role}'s process ended before it was ready: ${lines.join("; ")}`)
  }
}
