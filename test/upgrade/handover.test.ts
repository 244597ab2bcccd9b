/**
 * How either side of a handover reacts to the other: to strangers, to peers that die on the way, and to peers that
 * hang.
 */
import { spawn } from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { createInterface } from "node:readline"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Result } from "effect"
import { decodeMessage, encodeMessage, handoverVersion, type Tag } from "../../adapters/upgrade/Messages.ts"
import { awaitSuccessor, offerHandover, type Timeouts } from "../../adapters/upgrade/Predecessor.ts"
import { refuseAmidHandover, takeOver } from "../../adapters/upgrade/Successor.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import { testNeeding } from "../lab/describeLab.ts"
import { temporaryFolder } from "../support/folders.ts"

const script = Path.join(import.meta.dirname, "../support/speaker.ts")
const hello = '{"_tag":"Hello","version":2}'
const timeouts: Timeouts = { silence: "30 seconds", ready: "30 seconds", gone: "30 seconds" }
const nothing = { sockets: [], listeners: [], connections: [], lock: undefined }

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
        const stranger = yield* speaker("connect", path)
        yield* stranger.send(said)
        assert.strictEqual(yield* stranger.hears, "connected")
        assert.strictEqual(yield* stranger.hears, refused(`process ${stranger.pid} ${why}`))
        assert.strictEqual(yield* stranger.hears, "ended")
      }
      const younger = yield* speaker("connect", path)
      yield* younger.send('{"_tag":"Hello","version":3,"more":true}')
      assert.strictEqual(yield* younger.hears, "connected")
      assert.strictEqual(
        yield* younger.hears,
        refused(
          `process ${process.pid} hands over by version 2, and was asked by version 3; stop it, then start this one`
        )
      )
      const right = yield* speaker("connect", path)
      yield* right.send(hello)
      assert.strictEqual(yield* right.hears, "connected")
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
      const stranger = yield* speaker("connect", path, { uid: 65534 })
      yield* stranger.send(hello)
      assert.strictEqual(yield* stranger.hears, "connected")
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
      const gone = yield* speaker("connect", path)
      assert.strictEqual(yield* gone.hears, "connected")
      yield* gone.kill
      const mute = yield* speaker("connect", path)
      assert.strictEqual(yield* mute.hears, "connected")
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
        const slow = yield* speaker("connect", path)
        yield* slow.send(hello)
        assert.strictEqual(yield* slow.hears, "connected")
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

describe("a process that takes over", () => {
  it.live("finds no predecessor without a socket, or without a listener on it", () =>
    Effect.gen(function* () {
      const path = yield* handoverPath
      assert.isUndefined(yield* takeOver(path))
      const killed = yield* speaker("listen", path)
      assert.strictEqual(yield* killed.hears, "listening")
      yield* killed.kill
      yield* killed.end
      assert.isTrue(Fs.existsSync(path))
      assert.isUndefined(yield* takeOver(path))
    })
  )

  it.live("receives the reason for a refusal, from any version", () =>
    Effect.gen(function* () {
      const path = yield* handoverPath
      const other = yield* speaker("listen", path)
      assert.strictEqual(yield* other.hears, "listening")
      const taking = yield* Effect.forkChild(Effect.result(takeOver(path)))
      assert.strictEqual(yield* other.hears, "connected")
      assert.strictEqual(yield* other.hears, `0 ${hello}`)
      yield* other.send('{"_tag":"Refused","reason":"process 7 hands over by version 2","since":2}')
      const taken = yield* Fiber.join(taking)
      assert.strictEqual(
        Result.isFailure(taken) ? taken.failure.message : "",
        "process 7 hands over by version 2"
      )
    })
  )

  const untilHanded = ['{"_tag":"Accepted"}', '{"_tag":"Handed"}']

  for (const said of [[], untilHanded.slice(0, 1)])
    it.live(`starts without it where the predecessor dies after ${said.length} messages`, () =>
      Effect.gen(function* () {
        const path = yield* handoverPath
        const other = yield* speaker("listen", path)
        assert.strictEqual(yield* other.hears, "listening")
        const taking = yield* Effect.forkChild(takeOver(path))
        assert.strictEqual(yield* other.hears, "connected")
        assert.strictEqual(yield* other.hears, `0 ${hello}`)
        for (const message of said) yield* other.send(message)
        yield* other.kill
        assert.isUndefined(yield* Fiber.join(taking))
      })
    )

  it.live("continues alone where the predecessor dies once everything was handed over", () =>
    Effect.gen(function* () {
      const path = yield* handoverPath
      const other = yield* speaker("listen", path)
      assert.strictEqual(yield* other.hears, "listening")
      const taking = yield* Effect.forkChild(takeOver(path))
      for (const message of untilHanded) yield* other.send(message)
      const predecessor = yield* Fiber.join(taking)
      assert.deepStrictEqual(predecessor?.state, nothing)
      yield* other.kill
      yield* predecessor?.confirm ?? Effect.die("nothing was taken over")
    })
  )

  it.live("continues alone where the predecessor hangs after it could let go, and kills it first", () =>
    Effect.gen(function* () {
      const path = yield* handoverPath
      const other = yield* speaker("listen", path)
      assert.strictEqual(yield* other.hears, "listening")
      const taking = yield* Effect.forkChild(takeOver(path))
      for (const message of untilHanded) yield* other.send(message)
      const predecessor = yield* Fiber.join(taking)
      yield* predecessor?.confirm ?? Effect.die("nothing was taken over")
      assert.strictEqual(yield* other.end, "SIGKILL")
    })
  )

  it.live("gives up where the predecessor revokes, or hands over something unusable", () =>
    Effect.gen(function* () {
      const path = yield* handoverPath
      const back = yield* speaker("listen", path)
      assert.strictEqual(yield* back.hears, "listening")
      const taking = yield* Effect.forkChild(takeOver(path))
      for (const message of [...untilHanded, '{"_tag":"Aborted","reason":"it took too long"}'])
        yield* back.send(message)
      const predecessor = yield* Fiber.join(taking)
      const aborted = yield* Effect.flip(predecessor?.confirm ?? Effect.void)
      assert.strictEqual(aborted.message, `process ${back.pid} serves again: it took too long`)

      const wrong = yield* speaker("listen", path)
      assert.strictEqual(yield* wrong.hears, "listening")
      const failing = yield* Effect.forkChild(Effect.flip(takeOver(path)))
      yield* wrong.send('{"_tag":"Accepted"}')
      yield* wrong.send('{"_tag":"Sockets","items":[{"protocol":"tcp","host":"0.0.0.0","port":80}]}')
      assert.strictEqual(
        (yield* Fiber.join(failing)).message,
        `process ${wrong.pid} handed over what can't be used: 1 sockets came with 0 descriptors`
      )
    })
  )

  it.live("receives a thousand descriptors with their descriptions", () =>
    Effect.gen(function* () {
      const path = yield* handoverPath
      const connected = yield* offerHandover(path)
      const [taking] = yield* Effect.all([Effect.forkChild(takeOver(path))])
      const session = yield* awaitSuccessor(connected, timeouts)
      const { fd, copies } = yield* openedFile(path)
      const sockets = Array.from({ length: 1000 }, (_, index) => ({
        protocol: index % 2 === 0 ? ("tcp" as const) : ("udp" as const),
        host: addressUnsafe(index % 3 === 0 ? "fe80::1%eth0" : "10.0.0.1"),
        port: 1 + index,
        fd
      }))
      const listeners = [
        { place: "unix /run/x.sock", inode: 12, fd },
        { place: "tcp 127.0.0.1:0", port: 7000, fd }
      ]
      const connections = [{ place: "unix /run/x.sock", fd }]
      const handing = yield* Effect.forkChild(session.handOver({ sockets, listeners, connections, lock: fd }))
      const predecessor = yield* Fiber.join(taking)
      const { state, confirm } = predecessor ?? assert.fail("nothing was taken over")
      const without = <A extends { readonly fd: number }>(items: ReadonlyArray<A>) =>
        items.map(({ fd: _, ...item }) => item)
      assert.deepStrictEqual(without(state.sockets), without(sockets))
      assert.deepStrictEqual(without(state.listeners), without(listeners))
      assert.deepStrictEqual(without(state.connections), without(connections))
      const { sockets: ports, listeners: own, connections: idle, lock = -1 } = state
      const received = [...[...ports, ...own, ...idle].map((item) => item.fd), lock]
      assert.strictEqual(new Set(received).size, 1004)
      const confirming = yield* Effect.forkChild(confirm)
      yield* Fiber.join(handing)
      yield* session.release
      yield* Fiber.join(confirming)
      assert.strictEqual(copies(), 1004)
      for (const each of received) Fs.closeSync(each)
    })
  )

  it.live("closes everything received from a predecessor that ends before the last message", () =>
    Effect.gen(function* () {
      const path = yield* handoverPath
      const connected = yield* offerHandover(path)
      const taking = yield* Effect.forkChild(takeOver(path))
      const { fd, copies } = yield* openedFile(path)
      const items = [{ protocol: "tcp" as const, host: "0.0.0.0", port: 80 }]
      yield* Effect.scoped(
        Effect.gen(function* () {
          const socket = yield* connected
          yield* socket.send({ bytes: encodeMessage({ _tag: "Accepted" }), fds: [] })
          yield* socket.send({ bytes: encodeMessage({ _tag: "Sockets", items }), fds: [fd] })
        })
      )
      assert.isUndefined(yield* Fiber.join(taking))
      assert.strictEqual(copies(), 0)
    })
  )
})

it.live("a plain start is refused amid a handover, and allowed without a listener", () =>
  Effect.gen(function* () {
    const path = yield* handoverPath
    yield* refuseAmidHandover(path)
    yield* Effect.scoped(
      Effect.gen(function* () {
        yield* offerHandover(path)
        const { message } = yield* Effect.flip(refuseAmidHandover(path))
        assert.strictEqual(message, `process ${process.pid} is handing over to another one`)
      })
    )
    assert.isFalse(Fs.existsSync(path))
    yield* refuseAmidHandover(path)
  })
)

it("speaks version 2 of the handover as 0.1.0 does: another message is another version", () => {
  const recorded = Fs.readFileSync(vector, "utf8").trimEnd().split("\n")
  const tags = recorded.map((line) => JSON.parse(line)._tag as Tag)
  assert.strictEqual(handoverVersion, 2)
  assert.strictEqual(new Set(tags).size, 12)
  for (const [index, line] of recorded.entries()) {
    const message = Result.getOrThrow(decodeMessage(Buffer.from(line), ...tags.slice(index, index + 1)))
    assert.strictEqual(Buffer.from(encodeMessage(message)).toString(), line)
  }
})

const vector = Path.join(import.meta.dirname, "../vectors/0.1.0/handover.jsonl")

const handoverPath = Effect.map(temporaryFolder, (folder) => Path.join(folder, "handover.sock"))

const refused = (reason: string): string => `0 ${JSON.stringify({ _tag: "Refused", reason })}`

/** A file of this process, and the number of further descriptors for it. */
const openedFile = Effect.fnUntraced(function* (path: string) {
  const file = `${path}.file`
  const fd = yield* Effect.acquireRelease(
    Effect.sync(() => Fs.openSync(file, "w")),
    (opened) => Effect.sync(() => Fs.closeSync(opened))
  )
  const isOpen = (name: string) => {
    try {
      return Fs.readlinkSync(`/proc/self/fd/${name}`) === file
    } catch {
      return false
    }
  }
  return { fd, copies: () => Fs.readdirSync("/proc/self/fd").filter(isOpen).length - 1 }
})

const speaker = (side: "connect" | "listen", path: string, as: { readonly uid?: number } = {}) =>
  Effect.gen(function* () {
    const child = yield* Effect.acquireRelease(
      Effect.sync(() => spawn(process.execPath, [script, side, path], { stdio: "pipe", ...as })),
      (running) => Effect.sync(() => void running.kill("SIGKILL"))
    )
    let complaint = ""
    child.stderr.on("data", (chunk) => {
      complaint += chunk
    })
    const ended = new Promise<string>((resolve) => child.once("close", (_, signal) => resolve(signal ?? "")))
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
    return {
      pid: child.pid,
      /** The next line, without those that only report that the other side is at work. */
      hears: Effect.promise(async () => {
        for (;;) {
          const line = String((await lines.next()).value)
          if (line !== '0 {"_tag":"Busy"}') return line
        }
      }),
      send: (text: string) => Effect.sync(() => void child.stdin.write(`${text}\n`)),
      kill: Effect.sync(() => void child.kill("SIGKILL")),
      end: Effect.promise(() => ended),
      complaint: Effect.promise(async () => {
        await ended
        return complaint
      })
    }
  })
