import { execFile } from "node:child_process"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { promisify } from "node:util"
import { assert, describe } from "@effect/vitest"
import { testNeeding } from "../lab/describeLab.ts"

const script = Path.join(import.meta.dirname, "../support/fullDisk.ts")

describe("the file of the mappings on a file system that fills up", () => {
  testNeeding(
    "refuses new mappings with the reason, keeps, confirms and removes existing ones, and accepts new ones once there is room",
    ["mounts"],
    async () => {
      const place = Fs.mkdtempSync(Path.join(Os.tmpdir(), "portmapper-full-"))
      try {
        const { stdout } = await promisify(execFile)("unshare", [
          "--mount",
          "sh",
          "-c",
          'mount -t tmpfs -o size=3m,mode=700 none "$1" && exec "$2" "$3" "$1"',
          "sh",
          place,
          process.execPath,
          script
        ])
        const noSpace = `recording a mapping failed: no space left for ${place}/state`
        assert.deepStrictEqual(stdout.trim().split("\n"), [
          `full: Full ${noSpace}/mappings.db`,
          "more than a thousand: true",
          `another refused: ${noSpace}/mappings.db`,
          "confirming 1 done",
          "removing 1 done",
          "confirming 2 done",
          "removing 2 done",
          "confirming 3 done",
          "removing 3 done",
          "removed 980",
          "the Engine's start done",
          "found again: true 1 ",
          `a new one refused: ${noSpace}/mappings.db`,
          "removing done",
          "a new one done",
          `opening it read-only refused: preparing the state directory failed: EROFS: read-only file system, access '${place}/state'`
        ])
      } finally {
        Fs.rmSync(place, { recursive: true, force: true })
      }
    }
  )
})
