/**
 * A relayed UDP port with many sources: 26,000 new ones within the idle time, and 1,000 flows among them that
 * exchange a packet every 10 seconds. Measures the memory that they add to the relay and the kernel, and the
 * packets that the 1,000 lose. Takes 70 seconds.
 */
import { createSocket, type Socket } from "node:dgram"
import { once } from "node:events"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { compileLoad, host, kernelMemory, Processes, ports, proportionalMemory } from "./relaySubjects.ts"
import { row } from "./stats.ts"

const port = 21_104
const sources = 26_000
const steadyFlows = 1000
const beatMillis = 10_000
const beats = 6
const patienceMillis = 2000
/** Sources at a time: as many as this process can handle. */
const atOnce = 50

export const run = async (): Promise<void> => {
  const folder = mkdtempSync(join(tmpdir(), "portmapper-bench-"))
  const processes = new Processes()
  const steady: Array<Socket> = []
  try {
    processes.start(compileLoad(folder), ["packets", host, `${ports.packets}`])
    const relay = await processes.relay([
      { protocol: "udp", host, port, count: 1, backendPort: ports.packets }
    ])
    for (let flow = 0; flow < steadyFlows; flow++) steady.push(await socket())
    await beat(steady)
    const memory = () => [proportionalMemory([relay]), kernelMemory()] as const
    const [processBefore, kernelBefore] = memory()
    const flood = floodFor(beats * beatMillis)
    let lost = 0
    for (let round = 0; round < beats; round++) {
      await sleep(beatMillis)
      lost += await beat(steady)
    }
    const unanswered = await flood
    const [processAfter, kernelAfter] = memory()
    const megabytes = (before: number, after: number) => ((after - before) / 1024).toFixed(1)
    console.log(row([`${sources} sources, ${steadyFlows} steady flows`, ""]))
    console.log(row(["  packets of steady flows lost", `${lost} of ${beats * steadyFlows}`]))
    console.log(row(["  packets of new sources lost", `${unanswered} of ${sources}`]))
    console.log(row(["  more memory, process", `${megabytes(processBefore, processAfter)} MB`]))
    console.log(row(["  more memory, kernel", `${megabytes(kernelBefore, kernelAfter)} MB`]))
  } finally {
    for (const one of steady) one.close()
    processes.end()
    rmSync(folder, { recursive: true, force: true })
  }
}

const socket = async (): Promise<Socket> => {
  const made = createSocket("udp4")
  made.connect(port, host)
  await once(made, "connect")
  return made
}

/** Whether one packet gets an answer. */
const exchange = (client: Socket): Promise<boolean> =>
  new Promise((resolve) => {
    const onMessage = () => {
      clearTimeout(patience)
      resolve(true)
    }
    const patience = setTimeout(() => {
      client.off("message", onMessage)
      resolve(false)
    }, patienceMillis)
    client.once("message", onMessage)
    client.send("x")
  })

/** One exchange on every flow, a few at a time so that no buffer on the way overflows; returns the number lost. */
const beat = async (flows: ReadonlyArray<Socket>): Promise<number> => {
  let lost = 0
  for (let at = 0; at < flows.length; at += atOnce) {
    const answers = await Promise.all(flows.slice(at, at + atOnce).map(exchange))
    lost += answers.filter((answered) => !answered).length
  }
  return lost
}

/** One exchange from each of the sources, spread over this time; returns the number unanswered. */
const floodFor = async (millis: number): Promise<number> => {
  const begun = Date.now()
  let unanswered = 0
  for (let done = 0; done < sources; done += atOnce) {
    await sleep(Math.max(0, begun + (millis * done) / sources - Date.now()))
    const clients = await Promise.all(Array.from({ length: atOnce }, socket))
    unanswered += await beat(clients)
    for (const client of clients) client.close()
  }
  return unanswered
}
