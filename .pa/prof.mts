import { execFileSync, spawn } from "node:child_process"
import * as Fs from "node:fs"
import { createInterface } from "node:readline"
import { connect } from "../scripts/bench/keepAliveClient.ts"
import { labRequest } from "../test/support/requests.ts"
const ns = `pa-${process.pid}`
execFileSync("ip", ["netns", "add", ns])
const folder = Fs.mkdtempSync("/dev/shm/pa-")
try {
execFileSync("ip", ["-n", ns, "link", "set", "lo", "up"])
const child = spawn("ip", ["netns", "exec", ns, process.execPath, "--cpu-prof", "--cpu-prof-dir=/work/wt/page-api/.pa/prof", "adapters/cli/main.ts", "serve", "--socket", folder+"/p.sock", "--state", folder+"/state"], {stdio:["ignore","ignore","pipe"]})
for await (const l of createInterface(child.stderr)) if (l.startsWith("listening")) break
const client = await connect(folder+"/p.sock")
for (let i = 0; i < 100; i++) await client.post("/PortMapper.MapGroups", JSON.stringify({Groups: Array.from({length:100},(_, n)=>labRequest(10000+i*100+n))})+"\n")
for (let k = 0; k < 60; k++) await client.post("/PortMapper.ListPorts", "{}\n")
child.kill("SIGTERM")
await new Promise(r => child.on("exit", r))
} finally { execFileSync("ip", ["netns", "delete", ns]); Fs.rmSync(folder, {recursive:true,force:true}) }
process.exit(0)
