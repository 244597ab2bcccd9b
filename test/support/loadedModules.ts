/** Imported before a program (`node --import`); at its end the URLs of its modules are in the file `LOADED_MODULES`. */
import { writeFileSync } from "node:fs"
import { registerHooks } from "node:module"

const loaded: Array<string> = []

registerHooks({
  load: (url, context, nextLoad) => {
    loaded.push(url)
    return nextLoad(url, context)
  }
})

process.on("exit", () => writeFileSync(process.env["LOADED_MODULES"] ?? "/dev/null", loaded.join("\n")))
