/** `portmapper cni install DIR`: links the CNI plugin where a container runtime looks for it. */
import * as Fs from "node:fs"
import * as Path from "node:path"
import { Console, Effect } from "effect"
import { Argument, Command } from "effect/cli"
import { failed } from "./failure.ts"

const name = "portmapper-cni"

const install = Command.make(
  "install",
  {
    folder: Argument.String("DIR").pipe(
      Argument.withDescription("A folder of the runtime's CNI_PATH, such as /opt/cni/bin")
    )
  },
  ({ folder }) =>
    Effect.try({
      try: () => link(Path.join(folder, name)),
      catch: (error) => failed(`linking ${name} into ${folder}`, (error as Error).message)
    }).pipe(Effect.flatMap(({ path, target }) => Console.log(`${path} -> ${target}`)))
).pipe(Command.withDescription("Link portmapper-cni into a folder; an older link of that name is replaced"))

export const cni = Command.make("cni").pipe(
  Command.withDescription("The CNI plugin for container runtimes"),
  Command.withSubcommands([install])
)

/** Keeps another program's file of that name; replaces an older link atomically. */
const link = (path: string) => {
  const target = executable()
  const there = Fs.lstatSync(path, { throwIfNoEntry: false })
  if (there !== undefined && !there.isSymbolicLink())
    throw new Error(`${path} is there, and is not a link; remove it first`)
  const unfinished = `${path}.${process.pid}`
  Fs.symlinkSync(target, unfinished)
  try {
    Fs.renameSync(unfinished, path)
  } catch (error) {
    Fs.rmSync(unfinished)
    throw error
  }
  return { path, target }
}

/** Beside the running program; in a checkout, among the sources. */
const executable = (): string => {
  const folder = Path.dirname(Fs.realpathSync(process.argv[1] ?? ""))
  const built = Path.join(folder, name)
  return Fs.existsSync(built) ? built : Path.join(folder, "../cni/front.sh")
}
