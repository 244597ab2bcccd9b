import * as Fs from "node:fs"
import * as Path from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { awaitSuccessor, offerHandover, type Timeouts } from "../../adapters/upgrade/Predecessor.ts"
import { testNeeding } from "../lab/describeLab.ts"
import { connectedTo, handoverPath, hello, nothing, speaker, timeouts } from "./peer.ts"

describe("a process that offers its handover", () => {
  it.live("sends a process that may not take over the reason, and accepts the next one that may", () =>
    Effect.gen(function* () {
      const path = yield* handoverPath
      const connected = yield* offerHandover(path)
      assert.strictEqual(Fs.statSync(path).mode & 0o777, 0o600)
      const accepted = yield* Effect.forkChild(awaitSuccessor(connected, timeouts))
      const refusals: ReadonlyArray<readonly [string, string]> = [
        ["GET / HTTP/1.1", "sent something that is no message of a handover where Hello was to come"],
        ['{"_tag":"Ready"}', "sent Ready where Hello was to come"],
        ['{"_tag":"Hello"}', "sent something that is no message of a handover where Hello was to come"]
      ]
      for (const [said, why] of refusals) {
        const stranger = yield* connectedTo(path)
        yield* stranger.send(said)
        assert.strictEqual(yield* stranger.hears, refused(`process ${stranger.pid} ${why}`))
        assert.strictEqual(yield* stranger.hears, "ended")
      }
      const younger = yield* connectedTo(path)
      yield* younger.send('{"_tag":"Hello","version":3,"more":true}')
      assert.strictEqual(
        yield* younger.hears,
        refused(
          `process ${process.pid} hands over by version 2, and was asked by version 3; stop it, then start this one`
        )
      )
      const right = yield* connectedTo(path)
      yield* right.send(hello)
      assert.strictEqual(yield* right.hears, '0 {"_tag":"Accepted"}')
      assert.strictEqual((yield* Fiber.join(accepted)).pid, right.pid)
    })
  )

  testNeeding("refuses another user, who can't even connect by the file's mode", ["root"], () =>
    Effect.gen(function* () {
      const path = yield* handoverPath
      const connected = yield* offerHandover(path)
      yield* Effect.forkChild(awaitSuccessor(connected, timeouts))
      Fs.chmodSync(Path.dirname(path), 0o755)
      const shut = yield* speaker("connect", path, { uid: 65534 })
      assert.match(yield* shut.complaint, /connect: permission denied/)
      Fs.chmodSync(path, 0o666)
      const stranger = yield* connectedTo(path, { uid: 65534 })
      yield* stranger.send(hello)
      assert.strictEqual(
        yield* stranger.hears,
        refused(
          `process ${stranger.pid} of user 65534 may not take over from process ${process.pid} of user 0`
        )
      )
    })
  )

  it.live("skips a process that leaves without a message, and one that sends nothing in time", () =>
    Effect.gen(function* () {
      const path = yield* handoverPath
      const connected = yield* offerHandover(path)
      const accepted = yield* Effect.forkChild(
        awaitSuccessor(connected, { ...timeouts, silence: "200 millis" })
      )
      const gone = yield* connectedTo(path)
      yield* gone.kill
      const mute = yield* connectedTo(path)
      assert.match(yield* mute.hears, /sent nothing for 200ms/)
      yield* Fiber.interrupt(accepted)
    })
  )

  const late: ReadonlyArray<readonly [string, Partial<Timeouts>, (pid: number | undefined) => string]> = [
    ["says nothing", { silence: "100 millis" }, (pid) => `process ${pid} sent nothing for 100ms`],
    ["is busy for too long", { ready: "100 millis" }, (pid) => `process ${pid} could not serve within 100ms`]
  ]
  for (const [what, waits, why] of late)
    it.live(`asks a successor that ${what} to end, and kills it where it does not`, () =>
      Effect.gen(function* () {
        const path = yield* handoverPath
        const connected = yield* offerHandover(path)
        const slow = yield* connectedTo(path)
        yield* slow.send(hello)
        const session = yield* awaitSuccessor(connected, { ...timeouts, ...waits, gone: "500 millis" })
        const failure = yield* Effect.flip(session.handOver(nothing))
        assert.strictEqual(failure.message, why(slow.pid))
        const aborting = yield* Effect.forkChild(session.abort(failure.message))
        for (const line of ['0 {"_tag":"Accepted"}', '0 {"_tag":"Handed"}'])
          assert.strictEqual(yield* slow.hears, line)
        assert.strictEqual(yield* slow.hears, `0 {"_tag":"Aborted","reason":"${failure.message}"}`)
        yield* Fiber.join(aborting)
        assert.strictEqual(yield* slow.end, "SIGKILL")
      })
    )
})

const refused = (reason: string): string => `0 ${JSON.stringify({ _tag: "Refused", reason })}`
