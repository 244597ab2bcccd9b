import * as Fs from "node:fs"
import * as Path from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { type Doctor, makeDoctor } from "../../adapters/page/Doctor.ts"
import { temporaryFolder } from "../support/folders.ts"
import { until } from "../support/until.ts"

const saying = (script: string) => makeDoctor([process.execPath, "-e", script])

const found = (doctor: Doctor) =>
  Effect.map(
    until(Effect.sync(doctor.found), ({ checks }) => checks !== null),
    ({ checks, drops }) => ({ checks: checks?.checks, drops: [...drops] })
  )

describe("doctor for the page", () => {
  it.live("has its checks, and the ports whose traffic another program's rules drop, though it fails", () =>
    Effect.gen(function* () {
      const report = {
        checks: [
          { name: "nftables", status: "fail", found: "no nft", remedy: "install it" },
          { name: "IPv6", status: "ok", found: "on" },
          { name: "other rules", status: "warn", found: "table f drops it", remedy: "insert a rule" }
        ],
        drops: [{ table: "f", ports: ["0.0.0.0:80/tcp", "0.0.0.0:81/tcp"] }]
      }
      const doctor = yield* saying(`console.log(${JSON.stringify(JSON.stringify(report))}); process.exit(1)`)
      assert.deepStrictEqual(doctor.found(), { checks: null, drops: new Map() })
      doctor.ask(0)
      const drop = { reason: "table f drops it", remedy: "insert a rule" }
      assert.deepStrictEqual<unknown>(yield* found(doctor), {
        checks: report.checks.map((check) => ({ remedy: null, ...check })),
        drops: [
          ["0.0.0.0:80/tcp", drop],
          ["0.0.0.0:81/tcp", drop]
        ]
      })
    })
  )

  it.live("says so where it can't run", () =>
    Effect.gen(function* () {
      const says = (doctor: Doctor) => {
        doctor.ask(0)
        return Effect.map(found(doctor), ({ checks }) => checks)
      }
      const check = { name: "doctor", status: "warn" as const, remedy: "portmapper doctor" }
      assert.deepStrictEqual(yield* says(yield* saying('console.error("no luck\\nat x"); process.exit(2)')), [
        { ...check, found: "no luck" }
      ])
      assert.deepStrictEqual(yield* says(yield* makeDoctor(["/nowhere/node"])), [
        { ...check, found: "spawn /nowhere/node ENOENT" }
      ])
    })
  )

  it.live("runs once, however often it is asked meanwhile, and again once that is too old", () =>
    Effect.gen(function* () {
      const doctor = yield* saying("console.log(JSON.stringify({ checks: [], drops: [] }))")
      for (let asked = 0; asked < 5; asked++) doctor.ask(60_000)
      yield* found(doctor)
      const first = doctor.found()
      doctor.ask(60_000)
      yield* Effect.sleep(50)
      assert.strictEqual(doctor.found(), first)
      doctor.ask(0)
      yield* until(Effect.sync(() => doctor.found() !== first))
    })
  )

  it.live("ends with its scope", () =>
    Effect.gen(function* () {
      const file = Path.join(yield* temporaryFolder, "pid")
      const pid = yield* Effect.scoped(
        Effect.gen(function* () {
          const script = `fs.writeFileSync(${JSON.stringify(file)}, String(process.pid)); setInterval(() => {}, 1000)`
          const doctor = yield* saying(script)
          doctor.ask(0)
          return yield* until(
            Effect.sync(() => (Fs.existsSync(file) ? Number(Fs.readFileSync(file, "utf8")) : 0)),
            (found) => found > 0
          )
        })
      )
      yield* until(Effect.sync(() => !Fs.existsSync(`/proc/${pid}`)))
    })
  )
})
