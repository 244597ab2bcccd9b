/**
 * A client, a host and two containers on a bridge of the host. The host is this file's own namespace; the others are those of
 * child processes, and end with them.
 *
 *     client 192.0.2.2, fd00:2::2 ── eth0 host br0 ──┬── web   10.0.0.2, fd00::2
 *            192.0.2.3                192.0.2.1       └── other 10.0.0.3, fd00::3
 *                                     fd00:2::1
 */
import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process"
import { existsSync, writeFileSync } from "node:fs"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { Effect, type Scope } from "effect"
import type { Command } from "./agent.ts"
import { ip, run } from "./namespace.ts"

export interface Agent {
  readonly tell: (command: Command) => Effect.Effect<string>
  /** Runs a command in the agent's namespace. */
  readonly run: (command: string) => string
}

export interface Network {
  readonly client: Agent
  readonly host: Agent
  readonly web: Agent
  readonly other: Agent
}

export const makeNetwork: Effect.Effect<Network, never, Scope.Scope> = Effect.gen(function* () {
  writeFileSync("/proc/sys/net/ipv4/ip_forward", "1")
  writeFileSync("/proc/sys/net/ipv6/conf/all/forwarding", "1")
  bridgeNetfilter("0")
  const [client, host, web, other] = yield* Effect.all(
    [agent(true), agent(false), agent(true), agent(true)],
    { concurrency: "unbounded" }
  )
  ip("link add br0 type bridge")
  ip("address add 10.0.0.1/24 dev br0")
  ip("address add fd00::1/64 dev br0 nodad")
  ip("link set br0 up")
  cable(client, "eth0", ["192.0.2.2/24", "192.0.2.3/24", "fd00:2::2/64"], ["192.0.2.1", "fd00:2::1"])
  ip("address add 192.0.2.1/24 dev eth0")
  ip("address add fd00:2::1/64 dev eth0 nodad")
  cable(web, "web0", ["10.0.0.2/24", "fd00::2/64"], ["10.0.0.1", "fd00::1"])
  cable(other, "other0", ["10.0.0.3/24", "fd00::3/64"], ["10.0.0.1", "fd00::1"])
  ip("link set web0 master br0")
  ip("link set other0 master br0")
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      for (const link of ["eth0", "web0", "other0", "br0"]) ip(`link delete ${link}`)
    })
  )
  return { client, host, web, other }
})

/** Whether bridged packets pass the IP tables, in this namespace; does nothing where the kernel cannot. */
export const bridgeNetfilter = (value: "0" | "1"): boolean => {
  const names = ["iptables", "ip6tables"].map((name) => `/proc/sys/net/bridge/bridge-nf-call-${name}`)
  if (!names.every((name) => existsSync(name))) return false
  for (const name of names) writeFileSync(name, value)
  return true
}

/** A link from the host to the agent's namespace, with the agent's addresses and its routers. */
const cable = (
  { run: inside, pid }: Agent & { readonly pid: number },
  name: string,
  addresses: ReadonlyArray<string>,
  routers: ReadonlyArray<string>
) => {
  ip(`link add ${name} type veth peer name up0`)
  ip(`link set up0 netns ${pid}`)
  ip(`link set ${name} up`)
  inside("ip link set lo up")
  inside("ip link set up0 up")
  for (const address of addresses)
    inside(`ip address add ${address} dev up0${address.includes(":") ? " nodad" : ""}`)
  for (const router of routers) inside(`ip route add default via ${router}`)
}

const agent = Effect.fnUntraced(function* (apart: boolean) {
  const file = fileURLToPath(new URL("./agent.ts", import.meta.url))
  const child = yield* Effect.acquireRelease(
    Effect.sync(() =>
      apart ? spawn("unshare", ["-n", process.execPath, file]) : spawn(process.execPath, [file])
    ),
    (one) => Effect.sync(() => void one.kill("SIGKILL"))
  )
  const lines = linesOf(child)
  yield* lines.next
  return {
    pid: child.pid ?? 0,
    tell: (command: Command) =>
      Effect.suspend(() => {
        child.stdin.write(`${JSON.stringify(command)}\n`)
        return lines.next
      }),
    run: (command: string) => run(`nsenter --net=/proc/${child.pid}/ns/net ${command}`)
  }
})

/** The child's answers, in order; one is awaited at a time. */
const linesOf = (child: ChildProcessWithoutNullStreams) => {
  let waiting: ((line: string) => void) | undefined
  const early: Array<string> = []
  createInterface({ input: child.stdout }).on("line", (line) => {
    const answer: string = JSON.parse(line)
    const resume = waiting
    waiting = undefined
    if (resume === undefined) early.push(answer)
    else resume(answer)
  })
  child.stderr.on("data", (text: Buffer) => process.stderr.write(text))
  return {
    next: Effect.callback<string>((resume) => {
      const line = early.shift()
      if (line !== undefined) resume(Effect.succeed(line))
      else waiting = (answer) => resume(Effect.succeed(answer))
    })
  }
}
