/** A session on this process's streams with the in-memory services, which `stdio.ts` measures from outside. */
import { Effect } from "effect"
import { serve } from "../../adapters/stdio/StdioServer.ts"
import { PortMapper } from "../../src/mapper/PortMapper.ts"

Effect.runFork(
  serve({ input: process.stdin, output: process.stdout }).pipe(Effect.provide(PortMapper.layerMemory()))
)
