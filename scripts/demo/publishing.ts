/** `npm run demo`: publishes a port of a container, fetches a page from outside, lists the port and unpublishes it. */
import type { Shown } from "./Shown.ts"
import type { Stage } from "./Stage.ts"

const page = `
require("node:http").createServer((request, response) => {
  const from = request.socket.remoteAddress
  response.end("Hello from the container. You come from " + from + ".\\n")
}).listen(80, "172.31.0.2", () => console.log("ready"))
`

export const publishing = async (stage: Stage, shown: Shown): Promise<void> => {
  shown.print(
    "A client, a host, and a container behind it that serves a page on port 80:",
    "",
    "   client 10.99.0.2 ── 10.99.0.1 host 172.31.0.1 ── 172.31.0.2 container"
  )
  await stage.build()
  await stage.container(2, page)

  shown.print("The plugin serves; the host has no published port yet.")
  shown.ran("host", "portmapper serve", await stage.serve())

  shown.print("Publish the container's port 80 as port 8080 of the host.")
  const map = "map -p 8080:80 --to 172.31.0.2"
  shown.ran("host", `portmapper ${map}`, await stage.portmapper(map))

  shown.print("From outside: the kernel redirects it, and the container sees the client's address.")
  shown.ran("client", "GET http://10.99.0.1:8080/", await stage.fetch())

  shown.print("What is published, and what traffic it had:")
  shown.ran("host", "portmapper ls", await stage.portmapper("ls"))

  shown.print("In the kernel that is one element of one map, whatever else is published:")
  shown.ran("host", "nft list map inet portmapper any4", await stage.element("any4"))

  shown.print("Unpublish it, and the client is refused.")
  shown.ran("host", "portmapper unmap -p 8080", await stage.portmapper("unmap -p 8080"))
  shown.ran("client", "GET http://10.99.0.1:8080/", await stage.refusal())
}
