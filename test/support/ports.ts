/**
 * Ports of this machine's own addresses that no other test process uses, for tests that must know a port before they
 * open it. They come in blocks below the kernel's ephemeral range; a block belongs to the process that listens on
 * its first port.
 */
import { createSocket } from "node:dgram"
import { once } from "node:events"
import { createServer } from "node:net"

const first = 12_000
const blocks = 200
const size = 100

/** Port `index`, from 0 to 98, of a block that this process keeps to its end. */
export const reservePorts = async (): Promise<(index: number) => number> => {
  const start = process.pid % blocks
  for (let tried = 0; tried < blocks; tried++) {
    const base = first + ((start + tried) % blocks) * size
    const isOurs = await hold(base)
    if (isOurs && (await areFree(base + 1))) return (index) => base + 1 + index
  }
  throw new Error(`no block of ${size} ports from ${first} on is free`)
}

/** Listens until this process ends, which closes the socket. */
const hold = async (port: number): Promise<boolean> => {
  const server = createServer()
  try {
    server.listen({ port, host: "127.0.0.1", exclusive: true })
    await once(server, "listening")
    server.unref()
    return true
  } catch {
    return false
  }
}

/** Whether a program outside this scheme uses one of these ports, with either protocol. */
const areFree = async (from: number): Promise<boolean> => {
  for (let port = from; port < from + size - 1; port++)
    for (const opened of [tcp, udp])
      try {
        await opened(port)
      } catch {
        return false
      }
  return true
}

const tcp = async (port: number): Promise<void> => {
  const server = createServer().listen({ port, exclusive: true })
  await once(server, "listening")
  await once(server.close(), "close")
}

const udp = async (port: number): Promise<void> => {
  const socket = createSocket("udp4").bind({ port, exclusive: true })
  await once(socket, "listening")
  socket.close()
}
