/**
 * Moves the thread that runs a test file into a network namespace, so that code under test that opens sockets itself
 * acts there. The thread's children follow it, and the machine's own namespace is never touched.
 */
import { execFileSync } from "node:child_process"
import { closeSync, openSync, readlinkSync } from "node:fs"
import { Context, Effect, Layer } from "effect"
import { koffi } from "../../adapters/linux/Koffi.ts"
import type { Need } from "./Capabilities.ts"
import { describeLab } from "./describeLab.ts"
import * as Lab from "./Lab.ts"

/**
 * `describeLab` in a namespace of its own, with the loopback interface up; once per file. The kernel removes the
 * namespace with the last process inside.
 */
export const describeInNamespace = (
  title: string,
  tests: () => void,
  needs: ReadonlyArray<Need> = []
): void =>
  describeLab(title, needs, () => {
    const machine = readlinkSync(own)
    move("unshare", CLONE_NEWNET)
    if (readlinkSync(own) === machine) throw new Error("still in the machine's own namespace")
    ip("link set lo up")
    tests()
  })

/** A lab, with this thread in its host for as long as the layer lives. */
export class LabHost extends Context.Service<LabHost, Lab.Lab>()("test/lab/LabHost") {
  static readonly layer = Layer.effect(
    LabHost,
    Effect.tap(Lab.make(), ({ host }) =>
      Effect.acquireRelease(
        Effect.sync(() => {
          const before = openSync(own, "r")
          const inside = openSync(host.path, "r")
          move("setns", inside, CLONE_NEWNET)
          closeSync(inside)
          return before
        }),
        (before) =>
          Effect.sync(() => {
            move("setns", before, CLONE_NEWNET)
            closeSync(before)
          })
      )
    )
  )
}

/** Runs `ip ARGUMENTS` where the thread is. */
export const ip = (command: string): string => run(`ip ${command}`)

/** Runs a command, its words separated by spaces, where the thread is; returns its output. */
export const run = (command: string, input = ""): string => {
  const [file = "", ...words] = command.split(" ")
  return execFileSync(file, words, {
    encoding: "utf8",
    input,
    stdio: ["pipe", "pipe", "pipe"],
    env: environment
  })
}

const own = "/proc/thread-self/ns/net"
const CLONE_NEWNET = 0x40000000
const environment = { ...process.env, PATH: `${process.env["PATH"]}:/usr/sbin:/sbin`, LC_ALL: "C" }

const move = (name: "unshare" | "setns", ...numbers: ReadonlyArray<number>): void => {
  const call = koffi()
    .load(null)
    .func(`int ${name}(${numbers.map((_, index) => `int n${index}`).join()})`)
  if (call(...numbers) < 0) throw new Error(`${name}: errno ${koffi().errno()}`)
}
