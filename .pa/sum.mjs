import * as Fs from "node:fs"
const f = Fs.readdirSync(".pa/prof").map(n=>".pa/prof/"+n).sort((a,b)=>Fs.statSync(b).size-Fs.statSync(a).size)[0]
const p = JSON.parse(Fs.readFileSync(f)); const self=new Map(); const byId=new Map(p.nodes.map(n=>[n.id,n])); const parent=new Map(); for(const n of p.nodes) for(const c of n.children??[]) parent.set(c,n.id)
const tot=new Map()
p.samples.forEach((s,i)=>{ const d=p.timeDeltas[i]; const nm=n=>{const c=byId.get(n).callFrame; return c.functionName+" "+c.url.split("/").slice(-2).join("/")+":"+c.lineNumber}; self.set(nm(s),(self.get(nm(s))??0)+d); const seen=new Set(); for(let x=s;x!==undefined;x=parent.get(x)){const k=nm(x); if(!seen.has(k)){seen.add(k); tot.set(k,(tot.get(k)??0)+d)}}})
const top=(m,n=32)=>[...m].sort((a,b)=>b[1]-a[1]).slice(0,n).forEach(([k,v])=>console.log((v/1000).toFixed(0).padStart(8),k))
console.log("self"); top(self); console.log("total"); top(tot,60)
