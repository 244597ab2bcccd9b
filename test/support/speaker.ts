/**
 * Runs in its own process: one side of a handover that follows a script, line by line, and stays until its input
 * ends or it is killed. `listen` or `connect`, and a path; then each line is a text to send as one packet. It prints
 * each received packet as a line, with the number of descriptors. With a third argument it also sends, every second,
 * that it is busy.
 */
import { createInterface } from "node:readline"
import { Effect } from "effect"
import { connectForDescriptors, listenForDescriptors } from "../../adapters/linux/sockets/DescriptorSocket.ts"

const [side, path = "", busy] = process.argv.slice(2)

const spoken = Effect.gen(function* () {
  const socket =
    side === "connect"
      ? yield* connectForDescriptors(path)
      : yield* Effect.tap(listenForDescriptors(path), () => Effect.sync(() => console.log("listening"))).pipe(
          Effect.flatten
        )
  console.log("connected")
  const lines = createInterface({ input: process.stdin })
  lines.on("line", (line) => {
    Effect.runFork(socket.send({ bytes: Buffer.from(line), fds: [] }))
  })
  lines.on("close", () => process.exit(0))
  if (busy !== undefined)
    setInterval(() => Effect.runFork(socket.send({ bytes: Buffer.from('{"_tag":"Busy"}'), fds: [] })), 1000)
  while (true) {
    const packet = yield* socket.receive
    if (packet === undefined) return console.log("ended")
    console.log(`${packet.fds.length} ${Buffer.from(packet.bytes)}`)
  }
})

const awake = setInterval(() => {}, 1000)
await Effect.runPromise(Effect.scoped(spoken))
clearInterval(awake)
