/** The namespaces of a demo, the processes in them, and the commands that run there. */
import { type ChildProcess, execFile, spawn, spawnSync } from "node:child_process"
import { once } from "node:events"
import * as Path from "node:path"
import { createInterface, type Interface } from "node:readline"
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

/** Prints the text of a page, or why there is none. */
const fetching = `
fetch(process.argv[1]).then(
  async (response) => console.log((await response.text()).trimEnd()),
  ({ cause }) => { console.log(cause.code); process.exitCode = 1 }
)
`

/** A process that runs, and the lines that it prints after the one that said that it is ready. */
export interface Running {
  readonly process: ChildProcess
  readonly before: ReadonlyArray<string>
  readonly lines: AsyncIterator<string>
}

export class Stage {
  readonly #socket: string
  readonly #state: string
  readonly #children = new Set<ChildProcess>()
  readonly #namespaces = new Set<string>()

  constructor(folder: string) {
    this.#socket = Path.join(folder, "portmapper.sock")
    this.#state = Path.join(folder, "state")
  }

  /** The host and the client, 10.99.0.1 and 10.99.0.2; and the host's bridge for containers, 172.31.0.1. */
  async build(): Promise<void> {
    const [host, client] = [this.#namespace("host"), this.#namespace("client")]
    await script(`
      ip netns add ${host}; ip netns add ${client}
      ip -n ${host} link add wire type veth peer name eth0 netns ${client}
      ip -n ${host} link add box type bridge
      ip -n ${host} address add 10.99.0.1/24 dev wire; ip -n ${client} address add 10.99.0.2/24 dev eth0
      ip -n ${host} address add 172.31.0.1/24 dev box
      for link in "${host} lo" "${host} wire" "${host} box" "${client} eth0"; do
        ip -n "\${link% *}" link set "\${link#* }" up
      done
      ip netns exec ${host} sh -ec 'echo 1 >/proc/sys/net/ipv4/ip_forward'
      ip netns exec ${host} sh -c 'echo 1 >/proc/sys/net/netfilter/nf_conntrack_acct' 2>/dev/null || true
    `)
  }

  /** A container at 172.31.0.NUMBER that runs a program, up to the line that it is ready. */
  async container(number: number, page: string, words: ReadonlyArray<string> = []): Promise<Running> {
    const [host, container] = [this.#namespace("host"), this.#namespace(`container-${number}`)]
    await script(`
      ip netns add ${container}
      ip -n ${host} link add box${number} type veth peer name eth0 netns ${container}
      ip -n ${host} link set box${number} master box up
      ip -n ${container} address add 172.31.0.${number}/24 dev eth0
      ip -n ${container} link set eth0 up
      ip -n ${container} route add default via 172.31.0.1
    `)
    return this.start(`container-${number}`, ["-e", page, ...words], "stdout", /^ready/)
  }

  /** Returns its output up to the line that says it serves. */
  async serve(): Promise<string> {
    const own = ["--socket", this.#socket, "--state", this.#state]
    const { before } = await this.start("host", [program, "serve", ...own], "stderr", /^listening on/)
    return before.join("\n")
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

  /** Resolves once a line says that it is ready. */
  async start(
    role: string,
    args: ReadonlyArray<string>,
    on: "stdout" | "stderr",
    ready: RegExp
  ): Promise<Running> {
    const child = spawn("ip", ["netns", "exec", this.#namespace(role), process.execPath, ...args], {
      stdio: "pipe"
    })
    this.#children.add(child)
    child.on("exit", () => this.#children.delete(child))
    await once(child, "spawn")
    const reader: Interface = createInterface(child[on])
    const lines = reader[Symbol.asyncIterator]()
    const before: Array<string> = []
    for (;;) {
      const { value, done } = await lines.next()
      if (done === true)
        throw new Error(`the ${role}'s process ended before it was ready: ${before.join("; ")}`)
      before.push(value)
      if (ready.test(value)) return { process: child, before, lines }
    }
  }

  /** Call it once, in any state. */
  end(): void {
    for (const child of this.#children) child.kill("SIGKILL")
    for (const namespace of this.#namespaces)
      spawnSync("ip", ["netns", "del", namespace], { stdio: "ignore" })
  }

  #namespace(role: string): string {
    const name = `portmapper-demo-${process.pid}-${role}`
    this.#namespaces.add(name)
    return name
  }

  #in(role: string, command: string, args: ReadonlyArray<string>) {
    return run("ip", ["netns", "exec", this.#namespace(role), command, ...args])
  }
}

const script = (text: string) => run("sh", ["-ec", text])
