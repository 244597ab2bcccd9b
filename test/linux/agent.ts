/**
 * Runs inside a network namespace and executes commands, a JSON line each: serves echoes that name the client's
 * address, and queries such servers. It ends, and its namespace with it, when its input does.
 */
import { createSocket } from "node:dgram"
import { connect, createServer } from "node:net"
import { createInterface } from "node:readline"

export type Command =
  | {
      readonly do: "serve"
      readonly protocol: "tcp" | "udp"
      readonly address: string
      readonly port: number
      /** A datagram server without a name never answers. */
      readonly name: string
    }
  | {
      readonly do: "ask"
      readonly protocol: "tcp" | "udp"
      readonly address: string
      readonly port: number
      readonly from?: string | undefined
      /** How many datagrams to send, a millisecond apart, before an answer is awaited. */
      readonly times?: number | undefined
    }

const answerMillis = 400

/** What the server at the other end sends: its name and the client's address. */
const greeting = (name: string, from: string | undefined) => `${name} to ${from?.replace("::ffff:", "")}`

const serve = ({ protocol, address, port, name }: Command & { do: "serve" }) =>
  new Promise<string>((resolve) => {
    if (protocol === "tcp") {
      const server = createServer((client) => {
        client.on("error", () => {})
        client.end(greeting(name, client.remoteAddress))
      })
      server.on("error", (error) => resolve(error.message))
      server.listen({ host: address, port }, () => resolve("serving"))
    } else {
      const socket = createSocket(address.includes(":") ? "udp6" : "udp4")
      socket.on("message", (_, client) => {
        if (name !== "") socket.send(greeting(name, client.address), client.port, client.address)
      })
      socket.on("error", (error) => resolve(error.message))
      socket.bind(port, address, () => resolve("serving"))
    }
  })

const ask = ({ protocol, address, port, from, times = 1 }: Command & { do: "ask" }) =>
  new Promise<string>((resolve) => {
    // Counts ticks instead of time, since they slow down with a busy machine.
    let ticks = answerMillis / 10
    const timer = setInterval(() => {
      if (--ticks === 0) done("silence")
    }, 10)
    const done = (answer: string) => {
      clearInterval(timer)
      close()
      close = () => {}
      resolve(answer)
    }
    let close: () => void = () => {}
    if (protocol === "tcp") {
      const client = connect({ host: address, port, ...(from === undefined ? {} : { localAddress: from }) })
      let answer = ""
      client.setEncoding("utf8").on("data", (text: string) => {
        answer += text
      })
      client.on("end", () => done(answer))
      client.on("error", (error: NodeJS.ErrnoException) => done(error.code ?? error.message))
      close = () => client.destroy()
    } else {
      const socket = createSocket(address.includes(":") ? "udp6" : "udp4")
      // The remaining datagrams go out after the first answer.
      close = () => setTimeout(() => socket.close(), answerMillis)
      socket.on("message", (text) => done(text.toString()))
      socket.on("error", (error: NodeJS.ErrnoException) => done(error.code ?? error.message))
      socket.bind(0, from, () => {
        socket.connect(port, address, () => {
          for (let sent = 0; sent < times; sent++) setTimeout(() => socket.send("?"), sent)
        })
      })
    }
  })

createInterface({ input: process.stdin })
  .on("line", (line) => {
    const command: Command = JSON.parse(line)
    const answer = command.do === "serve" ? serve(command) : ask(command)
    answer.then((text) => process.stdout.write(`${JSON.stringify(text)}\n`))
  })
  .on("close", () => process.exit(0))
process.stdout.write(`"ready"\n`)
