/**
 * The page as one file of HTML: its program and its style are in it, so that a Content-Security-Policy can name both by
 * their hashes, and nothing else is fetched to show it.
 */
import * as Fs from "node:fs"
import * as Path from "node:path"
import { build, type Plugin } from "vite"

const root = Path.resolve(import.meta.dirname, "../..")
const app = Path.join(root, "adapters/page/app")

interface Output {
  readonly fileName: string
  readonly code?: string
  readonly source?: string | Uint8Array
}

/** The text of `page.html`. */
export const buildPage = async (plugins: ReadonlyArray<Plugin> = []): Promise<string> => {
  const { output } = (await build({
    root: app,
    configFile: false,
    logLevel: "warn",
    plugins: [...plugins],
    // Whatever NODE_ENV says.
    define: { "process.env.NODE_ENV": '"production"' },
    oxc: { jsx: { runtime: "automatic", importSource: "preact", development: false } },
    build: {
      write: false,
      target: "es2024",
      cssCodeSplit: false,
      modulePreload: false,
      rollupOptions: { input: Path.join(app, "main.tsx"), output: { codeSplitting: false } }
    }
  })) as { readonly output: ReadonlyArray<Output> }
  const only = (suffix: string): string => {
    const [file, ...more] = output.filter(({ fileName }) => fileName.endsWith(suffix))
    if (file === undefined || more.length > 0) throw new Error(`the page is not built as one ${suffix} file`)
    return `${file.code ?? file.source}`.trim()
  }
  if (output.length !== 2) throw new Error(`the page is built as ${output.length} files instead of two`)
  return insert(Fs.readFileSync(Path.join(app, "index.html"), "utf8"), {
    "<style></style>": `<style>${only(".css")}</style>`,
    '<script type="module"></script>': `<script type="module">${only(".js")}</script>`
  })
}

const insert = (template: string, texts: Record<string, string>): string => {
  let html = template
  for (const [mark, text] of Object.entries(texts)) {
    const [before, after, ...more] = html.split(mark)
    if (before === undefined || after === undefined || more.length > 0)
      throw new Error(`index.html does not hold ${mark} once`)
    // An end tag within would end the element early.
    if (/<\/(script|style)|<!--/i.test(text.slice(text.indexOf(">") + 1, text.lastIndexOf("</"))))
      throw new Error(`what replaces ${mark} holds an end tag`)
    html = `${before}${text}${after}`
  }
  return html
}
