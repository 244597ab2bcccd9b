/**
 * Runs in its own process: a download that stops in the middle. `serve PORT` sends a first half to each client, and
 * the second one once a line comes on its input; `get HOST PORT` prints `half` after the first one, and at the end the
 * length and the hash of all that came.
 */
import { createHash } from "node:crypto"
import * as Net from "node:net"
import { createInterface } from "node:readline"

const half = 4 * 1024 * 1024

/** What is sent: no two parts of it are the same. */
const content = (): Buffer => {
  const bytes = Buffer.alloc(2 * half)
  for (let index = 0; index < bytes.length; index += 4) bytes.writeUInt32BE((index * 2654435761) >>> 0, index)
  return bytes
}

const summary = (bytes: Buffer): string =>
  `${bytes.length} ${createHash("sha256").update(bytes).digest("hex")}`

/** What `get` prints of a whole download. */
export const expected = (): string => summary(content())

const [role, ...where] = process.argv.slice(2)

if (role === "serve") {
  const bytes = content()
  const waiting = new Set<Net.Socket>()
  const server = Net.createServer((client) => {
    client.on("error", () => {}).write(bytes.subarray(0, half))
    waiting.add(client)
  })
  server.listen(Number(where[0]), "0.0.0.0", () => console.log("serving"))
  createInterface({ input: process.stdin }).on("line", () => {
    for (const client of waiting) client.end(bytes.subarray(half))
    waiting.clear()
  })
}

if (role === "get") {
  const [host = "", port] = where
  const parts: Array<Buffer> = []
  let length = 0
  const isHalf = () => length >= half
  Net.connect({ host, port: Number(port) })
    .on("data", (part) => {
      const before = isHalf()
      parts.push(part)
      length += part.length
      if (!before && isHalf()) console.log("half")
    })
    .on("error", (error) => console.log(`failed after ${length}: ${error.message}`))
    .on("end", () => console.log(summary(Buffer.concat(parts))))
}
