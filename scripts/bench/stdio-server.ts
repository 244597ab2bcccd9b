/** A session on this process's streams, on the in-memory services: what `stdio.ts` measures from outside. */
import { Effect } from "effect"
import { serve } from "../../adapters/stdio/StdioServer.ts"
import { PortMapper } from "../../src/mapper/PortMapper.ts"

Effect.runFork(
  serve({ input: process.stdin, output: process.stdout }).pipe(Effect.provide(PortMapper.layerMemory()))
)
