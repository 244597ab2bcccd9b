/**
 * SCTP to a published port, where the kernel has it: redirected from everywhere but the host's loopback, and never
 * relayed, so frontends that need the relay are refused by design. Clients and servers are Python's, since Node has
 * no SCTP sockets.
 */
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { describeLab } from "../lab/describeLab.ts"
import * as Lab from "../lab/Lab.ts"
import type { Namespace } from "../lab/Namespace.ts"
import * as Plugin from "../lab/Plugin.ts"

const sctp = 132

/** Sends each client what it received, and from which address. */
const server = `
import socket, sys, threading
def listener(family, any):
    own = socket.socket(family, socket.SOCK_STREAM, ${sctp})
    if family == socket.AF_INET6: own.setsockopt(41, 26, 1)
    own.bind((any, 80)); own.listen(8)
    return own
def serve(own):
    while True:
        client, source = own.accept()
        client.settimeout(5)
        try: client.sendall(client.recv(100) + b" from " + source[0].encode())
        except OSError: pass
        client.close()
four, six = listener(socket.AF_INET, "0.0.0.0"), listener(socket.AF_INET6, "::")
print("listening", flush=True)
threading.Thread(target=serve, args=(six,), daemon=True).start()
serve(four)`

const client = `
import socket, sys
host, port = sys.argv[1], int(sys.argv[2])
own = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, ${sctp})
own.settimeout(3)
try:
    own.connect((host, port)); own.sendall(b"there and back"); print(own.recv(100).decode())
except OSError as error: print("failed", error)`

const ask = (from: Namespace, host: string, port: number) =>
  Effect.map(from.check("python3", ["-c", client, host, `${port}`]), (text) => text.trim())

const families = [
  {
    any: "0.0.0.0",
    backend: "172.31.0.2",
    other: "[fd66::2]",
    host: "10.99.0.1",
    bridge: "172.31.0.1",
    loopback: "127.0.0.1",
    client: "10.99.0.2"
  },
  {
    any: "[::]",
    backend: "[fd66::2]",
    other: "172.31.0.2",
    host: "fd99::1",
    bridge: "fd66::1",
    loopback: "::1",
    client: "fd99::2"
  }
]

describeLab("SCTP to a published port", ["sctp", "python"], () => {
  it.live("works where it is redirected, and is refused by design where it needs the relay", () =>
    Effect.gen(function* () {
      const lab = yield* Lab.make()
      const serving = yield* lab.c1.spawn("python3", ["-c", server])
      yield* serving.waitForLine("listening")
      const plugin = yield* Plugin.start(lab.host)
      const table: Array<string> = []
      for (const { any, backend, other, host, bridge, loopback, client: source } of families) {
        const mapped = yield* plugin.map([`sctp ${any}:8080 ${backend}:80`])
        assert.strictEqual(mapped.status, 200, mapped.error)
        for (const [place, from, to] of [
          ["outside", lab.client, host],
          ["neighbour", lab.c2, bridge],
          ["same container", lab.c1, bridge],
          ["host by address", lab.host, host]
        ] as const) {
          const reply = yield* ask(from, to, 8080)
          assert.match(reply, /^there and back from /, `${any}, ${place}`)
          if (place === "outside") assert.strictEqual(reply, `there and back from ${source}`)
          table.push(`sctp ${any}, ${place}: works`)
        }
        assert.match(yield* ask(lab.host, loopback, 8080), /^failed/, `${any}, host by loopback`)
        table.push(`sctp ${any}, host by loopback: refused by design`)
        assert.strictEqual((yield* plugin.unmap(mapped.bindings)).status, 200)
        assert.match(yield* ask(lab.client, host, 8080), /^failed/, `${any} after unmapping`)
        for (const [entry, labels] of [
          [`sctp ${any}:8080 ${other}:80`, {}],
          [`sctp ${any}:8080 ${backend}:80`, { "portmapper.mode": "proxy" }]
        ] as const) {
          const refused = yield* plugin.map([entry], labels)
          assert.strictEqual(refused.status, 500, entry)
          assert.match(refused.error, /SCTP is not relayed/, entry)
          table.push(`${entry} ${JSON.stringify(labels)}: refused by design`)
        }
      }
      console.log(table.join("\n"))
    })
  )
})
