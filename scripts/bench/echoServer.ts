/**
 * Yardsticks: servers on the given Unix socket that only send the plugin's answer. `http` is a bare `node:http`;
 * `net` a bare `node:net`, which takes each chunk it reads for one request and sends bytes made ahead.
 */
import * as Http from "node:http"
import * as Net from "node:net"

const [kind = "", path = ""] = process.argv.slice(2)

const granted =
  '{"PortBindings":[{"Proto":6,"BackendIP":"172.31.0.2","BackendPort":80,"FrontendIP":"0.0.0.0","FrontendPort":40000,"DiscardReq":false,"AllowForwarding":true,"NAT":null,"Error":null}],"Err":""}\n'
const contentType = "application/vnd.docker.plugins.v1.1+json"

const overHttp = (): Net.Server => {
  const server = Http.createServer({ requireHostHeader: false, noDelay: true }, (request, response) => {
    const chunks: Array<Buffer> = []
    request.on("data", (chunk: Buffer) => chunks.push(chunk))
    request.on("end", () => {
      JSON.parse(Buffer.concat(chunks).toString())
      const body = request.url === "/PortMapper.MapPorts" ? granted : "{}\n"
      response.writeHead(200, { "Content-Type": contentType, "Content-Length": Buffer.byteLength(body) })
      response.end(body)
    })
  })
  server.keepAliveTimeout = 0
  return server
}

const overNet = (): Net.Server => {
  const answer = Buffer.from(
    `HTTP/1.1 200 OK\r\nContent-Type: ${contentType}\r\nContent-Length: ${granted.length}\r\n\r\n${granted}`
  )
  return Net.createServer((socket) => {
    socket.on("data", () => socket.write(answer)).on("error", () => {})
  })
}

const server = kind === "http" ? overHttp() : overNet()
server.listen(path, () => console.log("ready"))
