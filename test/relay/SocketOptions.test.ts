import { readFileSync } from "node:fs"
import { assert, describe, it } from "@effect/vitest"
import * as C from "../../adapters/linux/Libc.ts"
import { setOptions } from "../../adapters/relay/SocketOptions.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import { reservePorts } from "../support/ports.ts"
import { nextData, relayTest } from "./world.ts"

const free = await reservePorts()

const tcp = "tcp" as const

describe("the options of a relayed socket", () => {
  relayTest("keeps its connections to clients alive", async (world) => {
    const backend = await world.backend((socket) => socket.pipe(socket))
    await world.open({ protocol: tcp, port: free(20), backend })
    const client = world.dial(free(20))
    client.write("x")
    await nextData(client)
    // The fields of proc_net_tcp(5): an established connection, and the timer of a keepalive.
    const port = free(20).toString(16).padStart(4, "0").toUpperCase()
    const accepted = readFileSync("/proc/net/tcp", "utf8")
    assert.match(accepted, new RegExp(` 0100007F:${port} \\S+ 01 \\S+ 02:`))
  })

  it("are the destination's address of packets to any address, and room for bursts", () => {
    const { socket, close, getsockopt } = C.libc()
    for (const [host, domain, level, option] of [
      ["0.0.0.0", C.AF_INET, C.IPPROTO_IP, C.IP_PKTINFO],
      ["::", C.AF_INET6, C.IPPROTO_IPV6, C.IPV6_RECVPKTINFO],
      ["127.0.0.1", C.AF_INET, C.IPPROTO_IP, C.IP_PKTINFO]
    ] as const) {
      const fd = socket(domain, C.SOCK_DGRAM, 0)
      const read = (of: number, name: number) => {
        const value = new Int32Array(1)
        getsockopt(fd, of, name, new Uint8Array(value.buffer), Uint8Array.of(4, 0, 0, 0))
        return value[0] ?? 0
      }
      const before = read(C.SOL_SOCKET, C.SO_RCVBUF)
      assert.strictEqual(setOptions(C.libc(), { protocol: "udp", host: addressUnsafe(host), port: 1, fd }), 0)
      assert.strictEqual(read(level, option), host === "127.0.0.1" ? 0 : 1, host)
      assert.isAbove(read(C.SOL_SOCKET, C.SO_RCVBUF), before)
      close(fd)
    }
  })
})
