/**
 * `npm run demo -- NAME`: what the plugin does, in a few seconds and without Docker. A host, the containers behind it
 * and a client outside are network namespaces, and the commands are those that a user types. It cleans up however it
 * ends. Needs root, iproute2 and nftables.
 */
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { publishing } from "./publishing.ts"
import { redeploy } from "./redeploy.ts"
import { Shown } from "./Shown.ts"
import { lacking, Stage } from "./Stage.ts"

const demos = { publishing, redeploy } as const
const isDemo = (name: string): name is keyof typeof demos => Object.hasOwn(demos, name)

const [name = "publishing", ...more] = process.argv.slice(2)
if (!isDemo(name) || more.length > 0) {
  const unexpected = isDemo(name) ? more[0] : name
  console.error(`demo: unexpected argument "${unexpected}"; there is ${Object.keys(demos).join(", ")}`)
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

try {
  await demos[name](stage, shown)
} catch (error) {
  console.error(`demo: ${(error as Error).message}`)
  end(1)
}
shown.print("Done. The demo removes its namespaces, and leaves nothing on this machine.", "")
end(0)
