/**
 * Requests that no plugin client sends, byte for byte, and the status that every HTTP listener must return: it must
 * refuse a request that two parsers could read differently.
 */
import type { Duplex } from "node:stream"
import { maxBodyBytes } from "../../adapters/docker/Routes.ts"

export interface HostileRequest {
  readonly title: string
  readonly bytes: string
  readonly status: number
  /** The status on a TCP port, where it differs. */
  readonly overTcp?: number
}

const head = (lines: ReadonlyArray<string>, requestLine = "POST /Plugin.Activate HTTP/1.1"): string =>
  [requestLine, ...lines, "", ""].join("\r\n")

const activate = (...lines: ReadonlyArray<string>): string =>
  head(["Host: localhost", "Content-Length: 0", ...lines])

const of = (host: string, requestLine?: string): string =>
  head([`Host: ${host}`, "Content-Length: 0"], requestLine)

/** Values of `Host`. */
const hosts: ReadonlyArray<HostileRequest> = [
  ...[
    "",
    "localhost",
    "LOCALHOST:80",
    "plugin.moby.localhost",
    "127.0.0.1:7000",
    "127.1.2.3",
    "[::1]:7000",
    "[::1]"
  ].map((host) => ({ title: `Host: ${host}`, bytes: of(host), status: 200 })),
  { title: "no Host", bytes: head(["Content-Length: 0"]), status: 200 },
  { title: "no Host in HTTP/1.0", bytes: head([], "POST /Plugin.Activate HTTP/1.0"), status: 200 },
  ...[
    "evil.example",
    "evil.example:7000",
    "localhost.evil.example",
    "192.0.2.1",
    "[2001:db8::1]",
    "localhost:7:7",
    "@"
  ].map((host) => ({ title: `Host: ${host}`, bytes: of(host), status: 200, overTcp: 421 })),
  ...["/metrics", "/healthz"].flatMap((path) => [
    { title: `${path} of localhost`, bytes: of("localhost", `GET ${path} HTTP/1.1`), status: 200 },
    {
      title: `${path} of another host`,
      bytes: of("evil.example", `GET ${path} HTTP/1.1`),
      status: 200,
      overTcp: 421
    }
  ]),
  {
    title: "a path that is not there, of another host",
    bytes: of("evil.example", "GET / HTTP/1.1"),
    status: 404,
    overTcp: 421
  },
  { title: "two Hosts", bytes: activate("Host: localhost"), status: 400 },
  { title: "another Host behind ours", bytes: activate("Host: evil.example"), status: 400 }
]

const headers: ReadonlyArray<HostileRequest> = [
  ["Origin", "Origin: http://evil.example"],
  ["Origin: null", "Origin: null"],
  ["Origin without a value", "Origin:"],
  ["Origin behind a bare LF", "Accept: a\nOrigin: http://evil.example"],
  ["Origin behind a bare CR", "Accept: a\rOrigin: http://evil.example"],
  ["NUL in a value", "Accept: a\0b"],
  ["DEL in a value", "Accept: a\x7fb"],
  ["a line without a colon", "Accept"],
  ["a line that is a known name without its last letter", "Hostx"],
  ["a name that is nothing", ": a"],
  ["space before the colon", "Accept : a"],
  ["a name with a space in it", "Acc ept: a"],
  ["a continued line", "Accept: a\r\n b"],
  ["an owner that is none", "Portmapper-Owner: a b"],
  ["a second Content-Length", "Content-Length: 0"],
  ["a second Content-Length that is another", "Content-Length: 5"],
  ["Content-Length beside chunks", "Transfer-Encoding: chunked"],
  ["Transfer-Encoding that is not known", "Transfer-Encoding: gzip"]
].map(([title = "", line = ""]) => ({ title, bytes: activate(line), status: 400 }))

const lengths: ReadonlyArray<HostileRequest> = [
  "-1",
  "+0",
  "0x0",
  "0,0",
  "0 0",
  "\xa00",
  "",
  "99999999999999999999"
].map((length) => ({
  title: `Content-Length: ${JSON.stringify(length)}`,
  bytes: head(["Host: localhost", `Content-Length: ${length}`]),
  status: 400
}))

const lines: ReadonlyArray<HostileRequest> = [
  { title: "a method in lower case", bytes: of("localhost", "post /Plugin.Activate HTTP/1.1"), status: 400 },
  {
    title: "two spaces before the path",
    bytes: of("localhost", "POST  /Plugin.Activate HTTP/1.1"),
    status: 200
  },
  { title: "a tab before the path", bytes: of("localhost", "POST\t/Plugin.Activate HTTP/1.1"), status: 400 },
  { title: "NUL in the path", bytes: of("localhost", "POST /Plugin.Activate\0 HTTP/1.1"), status: 400 },
  { title: "no version", bytes: of("localhost", "POST /Plugin.Activate"), status: 200 },
  { title: "another version", bytes: of("localhost", "POST /Plugin.Activate HTTP/3.7"), status: 400 },
  {
    title: "lines ended by LF alone",
    bytes: "POST /Plugin.Activate HTTP/1.1\nHost: localhost\n\n",
    status: 400
  },
  {
    title: "the path as a URL",
    bytes: of("localhost", "POST http://localhost/Plugin.Activate HTTP/1.1"),
    status: 404
  },
  { title: "a query", bytes: of("localhost", "POST /Plugin.Activate?x HTTP/1.1"), status: 404 },
  { title: "GET of a call", bytes: of("localhost", "GET /Plugin.Activate HTTP/1.1"), status: 405 },
  { title: "no HTTP", bytes: "\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", status: 400 },
  { title: "20 KiB of headers", bytes: activate(`Accept: ${"a".repeat(20_000)}`), status: 431 },
  {
    title: "20 KiB of headers in names that are known",
    bytes: activate(...["Accept", "User-Agent"].map((name) => `${name}: ${"a".repeat(10_000)}`)),
    status: 431
  },
  {
    title: "a body over the limit",
    bytes: head(["Host: localhost", `Content-Length: ${maxBodyBytes + 1}`]),
    status: 413
  }
]

export const hostileRequests: ReadonlyArray<HostileRequest> = [...hosts, ...headers, ...lengths, ...lines]

/** The status of the first answer; 0 where the connection closes without one. */
export const statusOf = (connection: Duplex, bytes: string): Promise<number> =>
  new Promise((resolve) => {
    let received = ""
    const end = () => {
      resolve(Number(/^HTTP\/1\.1 (\d{3}) /.exec(received)?.[1] ?? 0))
      connection.destroy()
    }
    connection.on("error", end).on("close", end)
    connection.on("data", (chunk: Buffer) => {
      received += chunk.toString("latin1")
      if (received.includes("\r\n\r\n")) end()
    })
    connection.write(Buffer.from(bytes, "latin1"))
  })
