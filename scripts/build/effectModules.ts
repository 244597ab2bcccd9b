/**
 * `import { Effect } from "effect"` in what is built becomes `import * as Effect from "effect/Effect"`: a bundler keeps all
 * of a module that it reaches by the package's entry (esbuild three times of what is used), and Node loads all of them.
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

/** On one line as before, so that stack traces stay right. */
export const byModule = (source: string): string =>
  source.replaceAll(/^import \{([^}]*)\} from "effect(\/net)?";$/gm, (_, names: string, folder = "") =>
    names
      .split(",")
      .map((name) => `import * as ${name.trim()} from "effect${folder}/${name.trim()}";`)
      .join(" ")
  )
