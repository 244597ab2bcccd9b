/**
 * The licences of third parties whose code is in the bundles: each package that a module came from, with its own
 * text.
 */
import * as Fs from "node:fs"
import * as Path from "node:path"
import type { Plugin } from "vite"

/** `text` covers every bundle that was made with `plugin`. */
export const makeNotices = (): { readonly plugin: Plugin; readonly text: () => string } => {
  const folders = new Set<string>()
  const plugin: Plugin = {
    name: "notices",
    generateBundle(_, bundle) {
      for (const output of Object.values(bundle))
        for (const id of output.type === "chunk" ? Object.keys(output.modules) : []) {
          const [folder] = /^.*\/node_modules\/(?:@[^/]+\/)?[^/]+/.exec(id) ?? []
          if (folder !== undefined) folders.add(folder)
        }
    }
  }
  return { plugin, text: () => [...folders].sort().map(noticeOf).join("\n") }
}

const noticeOf = (folder: string): string => {
  const { name, version, license } = JSON.parse(Fs.readFileSync(Path.join(folder, "package.json"), "utf8"))
  const file = Fs.readdirSync(folder).find((each) => /^licen[cs]e/i.test(each))
  if (file === undefined)
    throw new Error(`${name} ${version} is bundled, and its licence is not in ${folder}`)
  return `${name} ${version} (${license})\n\n${Fs.readFileSync(Path.join(folder, file), "utf8").trim()}\n`
}
