/** Prints the Debian packages that this machine lacks for the whole suite, a line each. */
import { lacking, needs, packagesOf } from "./Capabilities.ts"

for (const name of packagesOf(lacking(needs))) console.log(name)
