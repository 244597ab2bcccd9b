#!/usr/bin/env node
/**
 * What `front.sh` leaves to Node: every case except a plugin that runs and answers. Loads Node's own modules and
 * Effect only if the plugin has to be called; uses files and streams by their descriptors.
 */
import manifest from "../../package.json" with { type: "json" }
import { type Outcome, read } from "./Execution.ts"
import { supportedVersions } from "./NetworkConfig.ts"

const required = 24
const Fs = process.getBuiltinModule("node:fs")

/** Reads or writes by descriptor; retries while the descriptor is not ready. */
const patiently = <A>(attempt: () => A): A => {
  while (true) {
    try {
      return attempt()
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EAGAIN") throw error
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1)
    }
  }
}

const readAll = (): string => {
  const chunks: Array<Buffer> = []
  const chunk = Buffer.allocUnsafe(64 * 1024)
  while (true) {
    const length = patiently(() => Fs.readSync(0, chunk))
    if (length === 0) return Buffer.concat(chunks).toString()
    chunks.push(Buffer.from(chunk.subarray(0, length)))
  }
}

const writeAll = (descriptor: number, text: string): void => {
  const bytes = Buffer.from(text)
  for (let at = 0; at < bytes.length; ) at += patiently(() => Fs.writeSync(descriptor, bytes, at))
}

const about = `CNI plugin portmapper-cni v${manifest.version}
CNI protocol versions supported: ${supportedVersions.join(", ")}
`

const main = async (): Promise<number> => {
  if (Number(process.versions.node.split(".")[0]) < required) {
    writeAll(2, `portmapper-cni: needs Node.js ${required} or later, this is ${process.versions.node}\n`)
    return 2
  }
  const [option] = process.argv.slice(2)
  if (option === "--version") {
    writeAll(1, `portmapper-cni v${manifest.version}\n`)
    return 0
  }
  if (option !== undefined && option !== "--help") {
    writeAll(2, `portmapper-cni: ${option}: takes no arguments; a container runtime runs it, see --help\n`)
    return 2
  }
  // Without a command the CNI project's plugins print what they are, and runtimes rely on that.
  if (option === "--help" || !process.env["CNI_COMMAND"]) {
    writeAll(option === "--help" ? 1 : 2, about)
    return 0
  }
  const { status, stdout } = await outcome()
  writeAll(1, stdout)
  return status
}

/** How long to wait for a missing plugin. */
const patienceMillis = 5_000

const outcome = async (): Promise<Outcome> => {
  const asked = read({ variables: process.env, input: readAll })
  if (asked._tag === "Answered") return asked.outcome
  const { forward } = await import("./forward.ts")
  return forward(asked, process.env, patienceMillis)
}

process.exit(await main())
