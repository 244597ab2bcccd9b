/**
 * Imported before a program (`node --import`): its dumps of connection tracking wait as long as there is a file
 * `slow` in the folder `SLOW_CONNTRACK`, and create a file `begun`.
 */
import { existsSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { setTimeout } from "node:timers/promises"
import { libc } from "../../adapters/linux/Libc.ts"

const folder = process.env["SLOW_CONNTRACK"] ?? ""
const { sendLater } = libc()

Object.assign(libc(), {
  sendLater: async (...all: Parameters<typeof sendLater>) => {
    if (existsSync(join(folder, "slow"))) writeFileSync(join(folder, "begun"), "")
    while (existsSync(join(folder, "slow"))) await setTimeout(20)
    return sendLater(...all)
  }
})
