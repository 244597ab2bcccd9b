#!/usr/bin/env node
/** The executable: checks the Node that runs it before anything else is loaded, then hands over to the commands. */
const required = 24

if (Number(process.versions.node.split(".")[0]) < required) {
  process.stderr.write(`portmapper: needs Node.js ${required} or later, this is ${process.versions.node}\n`)
  process.exit(2)
}

await import("./commands.ts")

export {}
