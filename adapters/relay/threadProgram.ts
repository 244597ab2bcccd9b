/**
 * What a relay's thread runs: a module beside this one. `scripts/build` puts its text here instead, so that a running
 * process can start a thread after its files were replaced by another version's.
 */
export const threadProgram: URL | string = new URL(
  import.meta.url.endsWith(".ts") ? "./thread/main.ts" : "./thread/main.js",
  import.meta.url
)
