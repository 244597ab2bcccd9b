/**
 * Runs in its own process: sends each hostile request to a socket or a port, and prints how many got an unexpected
 * status.
 */
import * as Net from "node:net"
import { hostileRequests, statusOf } from "../support/hostileRequests.ts"

const [path = "", port = ""] = process.argv.slice(2)

for (const [name, where, overTcp] of [
  ["the socket", { path }, false],
  ["the TCP port", { host: "127.0.0.1", port: Number(port) }, true]
] as const)
  for (const hostile of hostileRequests) {
    const expected = overTcp ? (hostile.overTcp ?? hostile.status) : hostile.status
    const status = await statusOf(Net.connect(where), hostile.bytes)
    if (status !== expected) console.log(`${name} answers ${hostile.title} by ${status}, not ${expected}`)
  }
