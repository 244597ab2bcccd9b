/** The program of `Flood.ts`: `node flood-process.ts OPTIONS`, with the options as JSON. Ends with its input. */
import * as Dgram from "node:dgram"
import * as Net from "node:net"
import type { FloodOptions } from "./Flood.ts"

const { protocol, host, port, count } = JSON.parse(process.argv[2] ?? "{}") as FloodOptions

/** At most this many at a time, so that the kernel's queues lose none. */
const atOnce = 64

const connection = () =>
  new Promise<void>((done) => {
    Net.connect({ host, port })
      .on("error", () => done())
      .on("connect", () => done())
    // Don't wait for connections that wait for a place in the backlog.
    setTimeout(done, 100)
  })

/** The socket stays open, so that the next one gets another port. */
const packet = () =>
  new Promise<void>((done) => {
    const socket = Dgram.createSocket(Net.isIPv6(host) ? "udp6" : "udp4").on("error", () => done())
    socket.send("flood", port, host, () => done())
  })

process.stdin.resume().on("end", () => process.exit())
for (let begun = 0; begun < Math.min(count, 12_000); begun += atOnce)
  await Promise.all(
    Array.from({ length: Math.min(atOnce, count - begun) }, protocol === "tcp" ? connection : packet)
  )
process.stdout.write("sent\n")
