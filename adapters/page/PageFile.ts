/**
 * The page itself: one HTML file that the build makes, with its program and its styles in it. It is read once and kept
 * compressed, since a running process may outlive its files.
 */
import { createHash } from "node:crypto"
import * as Fs from "node:fs"
import { promisify } from "node:util"
import * as Zlib from "node:zlib"
import { Effect, Schema } from "effect"
import { systemReason } from "../docker/systemReason.ts"

export interface PageFile {
  readonly etag: string
  /** The Content-Security-Policy: the file's own script and styles, requests to this server, and nothing else. */
  readonly policy: string
  /** By the encodings that `Accept-Encoding` may name, the best one first. */
  readonly bodies: ReadonlyArray<readonly [encoding: "br" | "gzip" | "identity", body: Uint8Array]>
}

class PageFileError extends Schema.TaggedError<PageFileError>()("PageFileError", {
  file: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `reading the page ${this.file} failed: ${this.detail}`
  }
}

/** Beside the program, where the build puts it. */
const builtFile = new URL(
  import.meta.url.endsWith(".ts") ? "../../dist/bin/page.html" : "../page.html",
  import.meta.url
)

export const readPageFile = (file: string | URL = builtFile): Effect.Effect<PageFile, PageFileError> =>
  Effect.tryPromise({
    try: async () => {
      const html = Fs.readFileSync(file)
      const options = { params: { [Zlib.constants.BROTLI_PARAM_QUALITY]: 9 } }
      return {
        etag: `"${sha256(html)}"`,
        policy: policyOf(html.toString()),
        bodies: [
          ["br", await promisify(Zlib.brotliCompress)(html, options)],
          ["gzip", await promisify(Zlib.gzip)(html, { level: 9 })],
          ["identity", html]
        ] as const
      }
    },
    catch: (error) =>
      new PageFileError({ file: file instanceof URL ? file.pathname : file, detail: systemReason(error) })
  })

const sha256 = (content: string | Uint8Array): string => createHash("sha256").update(content).digest("base64")

/** Of the HTML, only inline script and style elements run, known by their hashes. */
const policyOf = (html: string): string => {
  const sources = (element: "script" | "style"): string =>
    Array.from(
      html.matchAll(new RegExp(`<${element}(?: [^>]*)?>(.*?)</${element}>`, "gs")),
      ([, text = ""]) => ` 'sha256-${sha256(text)}'`
    ).join("")
  return [
    "default-src 'none'",
    `script-src${sources("script") || " 'none'"}`,
    `style-src${sources("style") || " 'none'"}`,
    "connect-src 'self'",
    "img-src data:",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'"
  ].join("; ")
}

/** The first body whose encoding the client takes. */
export const bodyFor = ({ bodies }: PageFile, accepted = ""): PageFile["bodies"][number] => {
  const named = new Set(
    accepted.split(",").flatMap((part) => {
      const [name = "", ...parameters] = part.split(";").map((text) => text.trim().toLowerCase())
      return parameters.some((parameter) => /^q=0(\.0*)?$/.test(parameter)) ? [] : [name]
    })
  )
  return (
    bodies.find(([encoding]) => named.has(encoding)) ?? ["identity", bodies.at(-1)?.[1] ?? new Uint8Array()]
  )
}
