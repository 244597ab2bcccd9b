/** Every decoder that meets bytes of strangers, and what must be true of it whatever the bytes. */
import * as Fs from "node:fs"
import * as Path from "node:path"
import { Cause, Effect, Exit, Result } from "effect"
import { parsePolicy } from "../../src/mapper/Labels.ts"
import { parsePortRange } from "../../src/ports/PortRange.ts"
import { parseAddress } from "../../src/protocol/Address.ts"
import { Driver } from "../../src/protocol/Driver.ts"
import { parse, stringify } from "../../src/protocol/GoJson.ts"
import { call, textBody } from "../../src/protocol/Operations.ts"

export interface Decoder {
  readonly name: string
  /** The folder of test/fuzz/corpus that its inputs begin with. */
  readonly corpus: string
  readonly words: ReadonlyArray<string>
  /** Throws where something that must be true is not. */
  readonly take: (text: string) => void
}

const jsonWords = [
  ...["{", "}", "[", "]", ",", ":", '"', "null", "true", "-", "0", "1e9", "65536", "\\u0000", "\\ud800"],
  ...[
    '"Reqs"',
    '"Labels"',
    '"Proto":6',
    '"FrontendPort":0',
    '"BackendIP":"10.0.0.2"',
    '"__proto__"',
    "\ufeff"
  ]
]

const driver = Driver.of({
  mapPorts: ({ entries }) =>
    Effect.succeed(
      entries.map((entry) => ({
        entry,
        port: 1,
        discarded: undefined,
        allowForwarding: false,
        nat: undefined
      }))
    ),
  unmapPorts: () => Effect.void,
  listPorts: Effect.succeed([])
})

const methods = [
  "PortMapper.MapPorts",
  "PortMapper.UnmapPorts",
  "PortMapper.ListPorts",
  "Plugin.Activate"
] as const

export const decoders: ReadonlyArray<Decoder> = [
  {
    name: "JSON as Go reads it",
    corpus: "json",
    words: jsonWords,
    take: (text) => {
      const read = parse(text)
      if (Result.isFailure(read)) return
      const again = parse(stringify(read.success))
      if (Result.isFailure(again) || stringify(again.success) !== stringify(read.success))
        throw new Error("what it reads is not read again as the same")
    }
  },
  {
    name: "the calls",
    corpus: "requests",
    words: jsonWords,
    take: (text) => {
      for (const method of methods) {
        const exit = Effect.runSyncExit(
          Effect.provideService(Effect.scoped(call(method, textBody(text))), Driver, driver)
        )
        if (Exit.isFailure(exit) && !Cause.hasFails(exit.cause)) throw new Error(Cause.pretty(exit.cause))
      }
    }
  },
  {
    name: "labels",
    corpus: "labels",
    words: ["portmapper.", "mode", "allow", "=", ",", "/", "32", "ms", "hours", "Infinity", "-1"],
    take: (text) => {
      const equals = text.indexOf("=")
      const labels = new Map([[text.slice(0, Math.max(0, equals)), text.slice(equals + 1)]])
      const parsed = parsePolicy(labels)
      if (Result.isFailure(parsed) && parsed.failure.message === "") throw new Error("refused without a word")
    }
  },
  {
    name: "port ranges",
    corpus: "ranges",
    words: ["-", "0", "65535", "65536", " "],
    take: (text) => {
      const parsed = parsePortRange(text)
      if (Result.isFailure(parsed)) return
      const { first, last } = parsed.success
      if (!(1 <= first && first <= last && last <= 65535)) throw new Error(`${text} is no range of ports`)
    }
  },
  {
    name: "addresses",
    corpus: "addresses",
    words: ["::", ":", ".", "%", "ffff", "255", "0x1", "/64"],
    take: (text) => {
      const parsed = parseAddress(text)
      if (Result.isFailure(parsed)) return
      const again = parseAddress(parsed.success.text)
      if (Result.isFailure(again) || again.success.key !== parsed.success.key)
        throw new Error(`${JSON.stringify(text)} is answered as ${parsed.success.text}, which is another`)
    }
  }
]

export const corpusOf = (folder: string): ReadonlyArray<Uint8Array> => {
  const path = Path.join(import.meta.dirname, "corpus", folder)
  return Fs.readdirSync(path)
    .sort()
    .map((file) => new Uint8Array(Fs.readFileSync(Path.join(path, file))))
}

export const bytesOf = (texts: ReadonlyArray<string>): ReadonlyArray<Uint8Array> =>
  texts.map((text) => new TextEncoder().encode(text))
