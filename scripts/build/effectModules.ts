/**
 * Turns `import { Effect } from "effect"` into `import * as Effect from "effect/Effect"` in the build: a bundler
 * keeps all of a module that is imported through the package's entry (esbuild three times what is used), and Node
 * loads the whole package.
 */
import * as Fs from "node:fs"
import * as Path from "node:path"

export const importEffectModules = (folder: string): void => {
  for (const { parentPath, name } of Fs.readdirSync(folder, { recursive: true, withFileTypes: true })) {
    if (!name.endsWith(".js")) continue
    const path = Path.join(parentPath, name)
    Fs.writeFileSync(path, byModule(Fs.readFileSync(path, "utf8")))
  }
}

/** On one line as before, so that line numbers in stack traces stay right. */
const byModule = (source: string): string =>
  source.replaceAll(/^import \{([^}]*)\} from "effect(\/net)?";$/gm, (_, names: string, folder = "") =>
    names
      .split(",")
      .map((name) => `import * as ${name.trim()} from "effect${folder}/${name.trim()}";`)
      .join(" ")
  )
