/**
 * Web servers in a container that accept only connections with the PROXY protocol, on port 80 of both families:
 * HAProxy and nginx. They answer any request with the addresses they saw, as `CLIENT PORT SERVER PORT`.
 */
import { mkdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { Effect, type Scope } from "effect"
import type { Namespace } from "./Namespace.ts"
import { temporaryFolder } from "./Plugin.ts"
import { listening } from "./Probe.ts"
import { LabError } from "./Process.ts"

export const headerReaders = ["haproxy", "nginx"] as const
export type HeaderReader = (typeof headerReaders)[number]

/** Returns once it listens; it ends with the scope. */
export const start = Effect.fn("HeaderReaders.start")(function* (
  reader: HeaderReader,
  container: Namespace
): Effect.fn.Return<void, LabError, Scope.Scope> {
  const folder = yield* temporaryFolder
  const file = join(folder, `${reader}.conf`)
  writeFileSync(file, configurations[reader](folder))
  mkdirSync(join(folder, "tmp"))
  const running = yield* container.spawn(reader, reader === "haproxy" ? ["-db", "-f", file] : ["-c", file])
  for (let wait = 0; wait < 500; wait++) {
    const sockets = yield* listening(container)
    if (sockets.includes("tcp 0.0.0.0:80") && sockets.includes("tcp [::]:80")) return
    if (running.ended() !== undefined) break
    yield* Effect.sleep(20)
  }
  return yield* new LabError({ operation: reader, detail: `does not listen: ${running.lines().join("\n")}` })
})

const configurations: Readonly<Record<HeaderReader, (folder: string) => string>> = {
  haproxy: () => `
global
  maxconn 100
defaults
  mode http
  timeout client 5s
  timeout connect 5s
  timeout server 5s
frontend header
  bind 0.0.0.0:80 accept-proxy
  bind [::]:80 v6only accept-proxy
  http-request return status 200 content-type text/plain lf-string "%[src] %[src_port] %[dst] %[dst_port]"
`,
  nginx: (folder) => `
daemon off; master_process off; pid ${folder}/pid; error_log stderr;
events { worker_connections 64; }
http {
  access_log off;
  ${["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((kind) => `${kind}_temp_path ${folder}/tmp/${kind};`).join(" ")}
  server {
    listen 0.0.0.0:80 proxy_protocol;
    listen [::]:80 proxy_protocol ipv6only=on;
    default_type text/plain;
    return 200 "$proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_addr $proxy_protocol_server_port";
  }
}
`
}

/**
 * The answer to one request of this client, with the client's own view of its ends; empty where the server refuses
 * it.
 */
export const ask = (
  from: Namespace,
  host: string,
  port: number
): Effect.Effect<{ readonly header: string; readonly client: string; readonly port: number }, LabError> =>
  Effect.map(
    from.check(process.execPath, ["--input-type=module", "--eval", request, host, `${port}`]),
    (text) => JSON.parse(text)
  )

const request = `
import { connect } from "node:net"
const [host, port] = process.argv.slice(1)
const socket = connect({ host, port: Number(port) })
const own = {}
let answer = ""
socket.on("connect", () => {
  Object.assign(own, { client: socket.localAddress, port: socket.localPort })
  socket.write("GET / HTTP/1.1\\r\\nHost: lab\\r\\nConnection: close\\r\\n\\r\\n")
})
socket.setTimeout(5000, () => socket.destroy())
socket.on("data", (bytes) => { answer += bytes }).on("error", () => {}).on("close", () => {
  const ok = answer.startsWith("HTTP/1.1 200 ")
  console.log(JSON.stringify({ header: ok ? answer.slice(answer.indexOf("\\r\\n\\r\\n") + 4) : "", ...own }))
})`
