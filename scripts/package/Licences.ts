/** The licences of everything in the package: its own, and those of the installed packages that it is built from. */
import * as Fs from "node:fs"
import * as Path from "node:path"

interface Component {
  readonly name: string
  readonly version: string
  readonly licence: string
  readonly text: string
}

/** `debian/copyright` in format 1.0. */
export const copyrightText = (root: string): string => {
  const components = componentsOf(root)
  return [
    "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/",
    "Upstream-Name: portmapper",
    "",
    "Files: *",
    "Copyright: The portmapper authors",
    "License: Apache-2.0",
    "",
    "License: Apache-2.0",
    " On Debian systems the full text is in /usr/share/common-licenses/Apache-2.0.",
    "",
    "Files: usr/lib/portmapper/node usr/lib/portmapper/bin/* usr/lib/portmapper/node_modules/*",
    "Copyright: those named in the texts below",
    "License: components",
    "Comment: Node.js, and the libraries that the program is bundled with.",
    "",
    "License: components",
    ...components.flatMap(({ name, version, licence, text }) => [
      ` ${[name, version].join(" ").trim()} (${licence}):`,
      " .",
      ...text.trimEnd().split("\n").map(textLine),
      " ."
    ]),
    " End of the components."
  ]
    .join("\n")
    .concat("\n")
}

const textLine = (line: string): string => (line.trim() === "" ? " ." : `  ${line.trimEnd()}`)

/** Node.js, the packages loaded beside the program, and those in its bundles. */
const componentsOf = (root: string): ReadonlyArray<Component> => [
  { name: "Node.js", version: process.versions.node, licence: "MIT", text: textIn(nodeFolder(root)) },
  koffi(root),
  {
    name: "the libraries bundled with portmapper",
    version: "",
    licence: "each as its text says",
    text: Fs.readFileSync(Path.join(root, "dist/bin/THIRD-PARTY-NOTICES"), "utf8")
  }
]

const koffi = (root: string): Component => {
  const folder = Path.join(root, "node_modules/koffi")
  const { version, license } = JSON.parse(Fs.readFileSync(Path.join(folder, "package.json"), "utf8"))
  return { name: "koffi", version, licence: license, text: textIn(folder) }
}

/** The npm package of the Node that goes into the package. */
const nodeFolder = (root: string): string =>
  Path.join(root, `node_modules/node/node_modules/node-${process.platform}-${process.arch}`)

const textIn = (folder: string): string => {
  const name = Fs.readdirSync(folder).find((entry) => /^licen[cs]e(\.(txt|md))?$/i.test(entry))
  if (name === undefined) throw new Error(`${folder} has no licence`)
  return Fs.readFileSync(Path.join(folder, name), "utf8")
}
