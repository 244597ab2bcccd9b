import * as Net from "node:net"
import * as Path from "node:path"
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { AF_INET, libc, SOCK_STREAM } from "../../adapters/linux/Libc.ts"
import { boundTo } from "../../adapters/linux/sockets/SocketAddress.ts"
import { connectionError } from "../../adapters/node/connectionError.ts"
import { temporaryFolder } from "../support/folders.ts"

it.live("a connection fails where no process listens, or where none answers within a second", () =>
  Effect.gen(function* () {
    const path = Path.join(yield* temporaryFolder, "p.sock")
    assert.strictEqual((yield* connectionError({ path }))?.code, "ENOENT")
    const server = Net.createServer().listen(path)
    yield* Effect.addFinalizer(() => Effect.sync(() => server.close()))
    assert.isUndefined(yield* connectionError({ path }))

    // A listener whose queue is full does not answer.
    const { close, listen, socket } = libc()
    const fd = socket(AF_INET, SOCK_STREAM, 0)
    listen(fd, 0)
    const target = { host: "127.0.0.1", port: boundTo(libc(), fd)?.port ?? 0 }
    assert.isUndefined(yield* connectionError(target))
    assert.strictEqual((yield* connectionError(target))?.message, "no answer within 1 s")
    close(fd)
    assert.strictEqual((yield* connectionError(target))?.code, "ECONNREFUSED")
  })
)
