/**
 * Gives bundles Node's own modules through `process.getBuiltinModule`. An `import` of one creates a module of its
 * exports and reads every one of them, and reading those of `node:http` loads an HTTP client that the program does
 * not use: a fifth of its start time.
 */
import { builtinModules } from "node:module"
import type { Plugin } from "vite"

export const builtins: Plugin = {
  name: "builtins",
  enforce: "pre",
  resolveId: (id, _importer, { kind }) => {
    const name = id.replace(/^node:/, "")
    const loadedAtOnce = kind !== "dynamic-import"
    return loadedAtOnce && (builtinModules.includes(name) || builtinModules.includes(id))
      ? { id: `${prefix}node:${name}`, moduleSideEffects: false }
      : null
  },
  load: (id) => (id.startsWith(prefix) ? sourceOf(id.slice(prefix.length)) : null)
}

const prefix = "\0builtin:"

/** All exports except those that `node:http` creates on access: the client's classes for the web. */
const sourceOf = (name: string): string => {
  const builtin = process.getBuiltinModule(name)
  if (builtin === undefined) throw new Error(`there is no module ${name}`)
  const exported = Object.entries(Object.getOwnPropertyDescriptors(builtin))
    .filter(([, { get }]) => name !== "node:http" || get === undefined)
    .map(([key]) => key)
    .filter((key) => key !== "default" && /^[\w$]+$/.test(key))
  return [
    `const builtin = process.getBuiltinModule(${JSON.stringify(name)})`,
    "export default builtin",
    ...exported.map((key) => `export const ${key} = /* @__PURE__ */ (() => builtin.${key})()`)
  ].join("\n")
}
