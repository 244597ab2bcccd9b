/** Every decoder of untrusted bytes, and what must hold for any bytes. */
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { Cause, Effect, Exit, Result } from "effect"
import { CniError } from "../../adapters/cni/CniError.ts"
import { configOf, isObject, publicationOf, validAttachments } from "../../adapters/cni/NetworkConfig.ts"
import { containerAddresses, groupsOf } from "../../adapters/cni/PortMappings.ts"
import { MappingFile, UnusableFile } from "../../adapters/node/MappingFile.ts"
import { parsePolicy } from "../../src/mapper/model/Labels.ts"
import { parseAddress } from "../../src/protocol/Address.ts"
import { Driver } from "../../src/protocol/Driver.ts"
import { parse, stringify } from "../../src/protocol/GoJson.ts"
import { call, textBody, valueBody } from "../../src/protocol/Operations.ts"
import { parsePortRange } from "../../src/protocol/PortRange.ts"
import { parsePublish, parseUnpublish, publishText, unpublishText } from "../../src/protocol/PublishSyntax.ts"
import { mapping, records } from "../support/mappings.ts"

export interface Decoder {
  readonly name: string
  /** Where its inputs start: a folder of test/fuzz/corpus, or a generator. */
  readonly corpus: string | (() => ReadonlyArray<Uint8Array>)
  readonly words: ReadonlyArray<string>
  /** Throws where a rule does not hold. */
  readonly take: (text: string, bytes: Uint8Array) => void
  /** How many times slower an input is than others; fewer are tried in the same time. Default 1. */
  readonly share?: number
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

/** Grants every request and holds nothing. */
export const driver = Driver.of({
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

/** Takes methods and forms in turn. */
let calls = 0

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
    name: "the calls, in memory as text and as values",
    corpus: "requests",
    words: jsonWords,
    take: (text) => {
      const read = Result.try(() => JSON.parse(text) as unknown)
      const turn = calls++
      const body = turn % 2 === 0 || Result.isFailure(read) ? textBody(text) : valueBody(read.success)
      const method = methods[(turn >> 1) % methods.length] ?? "Plugin.Activate"
      const exit = Effect.runSyncExit(
        Effect.provideService(Effect.scoped(call(method, body)), Driver, driver)
      )
      if (Exit.isFailure(exit) && !Cause.hasFails(exit.cause)) throw new Error(Cause.pretty(exit.cause))
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
  },
  {
    name: "-p",
    corpus: "publish",
    words: [":", "::", "-", "/", "/udp", "[", "]", "%", "0", "65535", "65536", "0.0.0.0", "[::1]"],
    take: (text) => {
      const parsed = parsePublish(text)
      if (Result.isSuccess(parsed)) {
        const again = parsePublish(publishText(parsed.success))
        if (Result.isFailure(again) || publishText(again.success) !== publishText(parsed.success))
          throw new Error(
            `${JSON.stringify(text)} is written as ${publishText(parsed.success)}, which is another`
          )
      } else if (parsed.failure === "") throw new Error("refused without a word")
      const back = parseUnpublish(text)
      if (Result.isSuccess(back) && Result.isFailure(parseUnpublish(unpublishText(back.success))))
        throw new Error(`${JSON.stringify(text)} is written as what is not read`)
    }
  },
  {
    name: "CNI configurations",
    corpus: "cni",
    words: [...jsonWords, '"cniVersion"', '"1.1.0"', '"portMappings"', '"prevResult"', '"ips"', '"hostIP"'],
    take: (text) => {
      for (const command of ["ADD", "DEL", "CHECK", "GC", "STATUS"] as const)
        refusing(() => {
          const config = configOf(text, command)
          refusing(() => validAttachments(config))
          const { mappings } = publicationOf(config)
          const previous = config.raw["prevResult"]
          if (!isObject(previous)) return
          groupsOf(mappings, containerAddresses(previous, { containerId: "c", ifName: "eth0" }))
        })
    }
  },
  {
    name: "store files",
    corpus: () => [storeFile()],
    words: ["mapping", "answered", "CREATE TABLE", "\u0000\u0000\u0000\u0000", "127.0.0.1"],
    share: 0.02,
    take: (_, bytes) => {
      const folder = storeFolder()
      const path = Path.join(folder, "mappings.db")
      for (const name of Fs.readdirSync(folder)) Fs.rmSync(Path.join(folder, name))
      Fs.writeFileSync(path, bytes)
      let file: MappingFile | undefined
      try {
        file = new MappingFile(path, { sparePath: Path.join(folder, "spare") })
        file.load()
      } catch (error) {
        if (!(error instanceof UnusableFile)) throw error
      } finally {
        file?.close()
      }
    }
  }
]

/** The CNI plugin may refuse only with a CniError. */
const refusing = (read: () => void): void => {
  try {
    read()
  } catch (error) {
    if (!(error instanceof CniError)) throw error
  }
}

let folder: string | undefined

const storeFolder = (): string => {
  if (folder === undefined) {
    const made = Fs.mkdtempSync(Path.join(Os.tmpdir(), "fuzzed-store-"))
    process.on("exit", () => Fs.rmSync(made, { recursive: true, force: true }))
    folder = made
  }
  return folder
}

/** A store as it lies on the disk, with a mapping in each state. */
const storeFile = (): Uint8Array => {
  const path = Path.join(storeFolder(), "mappings.db")
  const file = new MappingFile(path, { sparePath: Path.join(storeFolder(), "spare") })
  file.put(records([mapping("tcp 0.0.0.0 172.17.0.2:80", 8080)], "answered"))
  file.put(records([mapping("udp :: [fd00::2]:53", 5353)], "applied"))
  file.close()
  return new Uint8Array(Fs.readFileSync(path))
}

export const corpusOf = (corpus: Decoder["corpus"]): ReadonlyArray<Uint8Array> => {
  if (typeof corpus !== "string") return corpus()
  const path = Path.join(import.meta.dirname, "corpus", corpus)
  return Fs.readdirSync(path)
    .sort()
    .map((file) => new Uint8Array(Fs.readFileSync(Path.join(path, file))))
}

export const bytesOf = (texts: ReadonlyArray<string>): ReadonlyArray<Uint8Array> =>
  texts.map((text) => new TextEncoder().encode(text))
