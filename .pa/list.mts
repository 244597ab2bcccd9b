import { execFileSync } from "node:child_process"
import { startPlugin } from "/work/wt/page-api/scripts/bench/plugin.ts"
import { processorMicros } from "/work/wt/page-api/scripts/bench/processorTime.ts"
import { labRequest } from "/work/wt/page-api/test/support/requests.ts"
const ns = `pa-${process.pid}`
execFileSync("ip", ["netns", "add", ns])
try {
execFileSync("ip", ["-n", ns, "link", "set", "lo", "up"])
const p = await startPlugin(ns)
for (let i = 0; i < 100; i++) await p.client.post("/PortMapper.MapGroups", JSON.stringify({Groups: Array.from({length:100},(_, n)=>labRequest(10000+i*100+n))})+"\n")
for (let k = 0; k < 8; k++) {
const b = processorMicros(p.pid); const t = performance.now()
const r = await p.client.post("/PortMapper.ListPorts", "{}\n")
console.log(r.length, (performance.now()-t).toFixed(1), ((processorMicros(p.pid)-b)/1000).toFixed(1))
}
p.stop()
} finally { execFileSync("ip", ["netns", "delete", ns]) }
process.exit(0)
