import * as Path from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as C from "../../../adapters/linux/Libc.ts"
import { unixAddress } from "../../../adapters/linux/sockets/SocketAddress.ts"
import { sendUnixDatagram } from "../../../adapters/linux/sockets/UnixDatagram.ts"
import { temporaryFolder } from "../../support/folders.ts"

const libc = C.libc()

/** Returns what reads the next datagram. */
const receiver = (path: string) =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => {
        const fd = libc.socket(C.AF_UNIX, C.SOCK_DGRAM, 0)
        const address = unixAddress(path) ?? assert.fail(path)
        assert.strictEqual(libc.bind(fd, address, address.length), 0)
        return fd
      }),
      (fd) => Effect.sync(() => void libc.close(fd))
    ),
    (fd) => () => {
      const bytes = new Uint8Array(64)
      const length = libc.recvfrom(
        fd,
        bytes,
        64,
        C.MSG_DONTWAIT,
        new Uint8Array(2),
        Uint8Array.of(2, 0, 0, 0)
      )
      return Buffer.from(bytes.subarray(0, Math.max(length, 0))).toString()
    }
  )

const send = (path: string, text = "READY=1") => sendUnixDatagram(path, new TextEncoder().encode(text))
const why = (path: string) => Effect.map(Effect.flip(send(path)), ({ message }) => message)

describe("a datagram to a Unix socket", () => {
  it.live("reaches a path, and an abstract name", () =>
    Effect.gen(function* () {
      for (const path of [Path.join(yield* temporaryFolder, "s"), `\0portmapper-datagram-${process.pid}`]) {
        const next = yield* receiver(path)
        yield* send(path)
        yield* send(path, "STOPPING=1")
        assert.deepStrictEqual([next(), next(), next()], ["READY=1", "STOPPING=1", ""])
      }
    })
  )

  it.live(
    "fails without waiting where nobody reads, where there is no socket, and for a path that is too long",
    () =>
      Effect.gen(function* () {
        const folder = yield* temporaryFolder
        const path = Path.join(folder, "s")
        yield* receiver(path)
        const full = yield* Effect.flip(Effect.forever(send(path)))
        assert.strictEqual(full.message, "send: resource temporarily unavailable")
        assert.strictEqual(yield* why(`${path}.other`), "connect: no such file or directory")
        assert.strictEqual(yield* why(Path.join(folder, "s".repeat(108))), "connect: file name too long")
      })
  )
})
