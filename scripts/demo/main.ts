/**
 * `npm run demo`: the main use in a few seconds, without Docker. A host, a container behind it and a client outside
 * are network namespaces; the demo publishes a port of the container, fetches a page from outside, lists the port
 * and unpublishes it, with the commands that a user types. It cleans up however it ends. Needs root, iproute2 and
 * nftables.
 */
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { Shown } from "./Shown.ts"
import { lacking, Stage } from "./Stage.ts"

if (process.argv.length > 2) {
  console.error(`demo: unexpected argument "${process.argv[2]}"`)
  process.exit(2)
}
const lacks = lacking()
if (lacks.length > 0) {
  console.error(`demo: it needs ${lacks.join(", and ")}`)
  process.exit(1)
}

const folder = Fs.mkdtempSync(Path.join(Os.tmpdir(), "portmapper-demo-"))
const shown = new Shown()
const stage = new Stage(folder)

const end = (status: number): never => {
  stage.end()
  Fs.rmSync(folder, { recursive: true, force: true })
  process.exit(status)
}
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const)
  process.on(signal, () => end(128 + Os.constants.signals[signal]))

const publishing = async (): Promise<void> => {
  shown.print(
    "A client, a host, and a container behind it that serves a page on port 80:",
    "",
    "   client 10.99.0.2 ── 10.99.0.1 host 172.31.0.1 ── 172.31.0.2 container"
  )
  await stage.build()

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

try {
  await publishing()
} catch (error) {
  console.error(`demo: ${(error as Error).message}`)
  end(1)
}
shown.print("Done. The demo removes its namespaces, and leaves nothing on this machine.", "")
end(0)
