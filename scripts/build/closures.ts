/**
 * Splits code into chunks by what is loaded together: each chunk has all modules that its roots import, except
 * those in a chunk named before it.
 */
import type { Plugin } from "vite"

/** The root modules of a chunk, from what each module loads at once and what it loads later. */
export type Roots = (loadedLaterBy: (id: string) => ReadonlyArray<string>) => ReadonlyArray<string>

export const closures = (chunks: Readonly<Record<string, Roots>>) => {
  const chunkOf = new Map<string, string>()
  const plugin: Plugin = {
    name: "closures",
    buildEnd() {
      for (const [name, rootsOf] of Object.entries(chunks)) {
        const roots = rootsOf((id) => this.getModuleInfo(id)?.dynamicallyImportedIds ?? [])
        const seen = new Set<string>()
        const waiting = [...roots]
        for (let id = waiting.pop(); id !== undefined; id = waiting.pop()) {
          if (seen.has(id)) continue
          seen.add(id)
          // A root, which runs when it is loaded, keeps a chunk of its own.
          if (!chunkOf.has(id) && !roots.includes(id)) chunkOf.set(id, name)
          waiting.push(...(this.getModuleInfo(id)?.importedIds ?? []))
        }
      }
    }
  }
  const groups = Object.keys(chunks).map((name) => ({
    name,
    test: (id: string) => chunkOf.get(id) === name,
    includeDependenciesRecursively: false
  }))
  return { plugin, groups }
}
