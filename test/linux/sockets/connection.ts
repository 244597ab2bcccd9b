import * as Path from "node:path"
import { Effect } from "effect"
import {
  connectForDescriptors,
  listenForDescriptors
} from "../../../adapters/linux/sockets/DescriptorSocket.ts"
import { temporaryFolder } from "../../support/folders.ts"

export const socketPath = Effect.map(temporaryFolder, (folder) => Path.join(folder, "h.sock"))

/** Both ends of a connection. */
export const connection = Effect.gen(function* () {
  const path = yield* socketPath
  const accept = yield* listenForDescriptors(path)
  const client = yield* connectForDescriptors(path)
  return { path, accept, client, server: yield* accept }
})
