/** What a module of doctor finds as a user without rights, with few descriptors, where this thread is. */
import { execFile } from "node:child_process"
import * as Path from "node:path"
import { promisify } from "node:util"

/** The module is loaded as root, since another user may not read the sources. */
const program = `
  const [module, name] = process.argv.slice(1)
  const found = await import(module)
  process.setgroups([]); process.setgid(65534); process.setuid(65534)
  console.log(JSON.stringify(found[name]()))
`

export const asNobody = async (module: string, name: string): Promise<unknown> => {
  const path = Path.join(import.meta.dirname, "../../adapters/doctor", `${module}.ts`)
  const node = [process.execPath, "--input-type=module", "-e", program, path, name]
  const { stdout } = await promisify(execFile)("prlimit", ["--nofile=1024:4096", ...node])
  return JSON.parse(stdout)
}
