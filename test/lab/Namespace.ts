/**
 * One network namespace of a lab: commands, long-lived processes and traffic inside it. Making and removing it is what
 * `Lab.ts` does.
 */
import { fileURLToPath } from "node:url"
import type { Effect, Scope } from "effect"
import * as Agent from "./Agent.ts"
import { check, type LabError, type Output, type RunOptions, run, start } from "./Process.ts"
import { type Running, type SpawnOptions, spawn } from "./Running.ts"

export interface Namespace {
  /** Its role in the lab: `client`, `host`, `c1`. */
  readonly role: string
  /** Its name for `ip netns`. */
  readonly name: string
  /** A file of the namespace, for `nsenter --net=`. */
  readonly path: string
  readonly agent: Agent.Agent
  /** Any exit code is a success. */
  readonly exec: (
    command: string,
    args?: ReadonlyArray<string>,
    options?: RunOptions
  ) => Effect.Effect<Output, LabError>
  /** Fails unless it exits with 0; returns its standard output. */
  readonly check: (
    command: string,
    args?: ReadonlyArray<string>,
    options?: RunOptions
  ) => Effect.Effect<string, LabError>
  /** `check` for a line of shell. */
  readonly sh: (script: string, options?: RunOptions) => Effect.Effect<string, LabError>
  readonly spawn: (
    command: string,
    args?: ReadonlyArray<string>,
    options?: SpawnOptions
  ) => Effect.Effect<Running, LabError, Scope.Scope>
}

export const make = (role: string, name: string): Namespace => {
  const inside = (command: string, args: ReadonlyArray<string>) => ["netns", "exec", name, command, ...args]
  return {
    role,
    name,
    path: `/run/netns/${name}`,
    agent: agentBy("ip", ["netns", "exec", name], role),
    exec: (command, args = [], options = {}) => run("ip", inside(command, args), options),
    check: (command, args = [], options = {}) => check("ip", inside(command, args), options),
    sh: (script, options = {}) => check("ip", inside("sh", ["-ec", script]), options),
    spawn: (command, args = [], options = {}) => spawn("ip", inside(command, args), options)
  }
}

/** An agent in the namespace that this command enters. */
export const agentBy = (command: string, args: ReadonlyArray<string>, role: string): Agent.Agent =>
  Agent.make(() => start(command, [...args, process.execPath, agentProgram, role], {}))

const agentProgram = fileURLToPath(new URL("./agent-process.ts", import.meta.url))
