/** Users of etcd, set up as docs/ETCD.md says. */
import * as Fs from "node:fs"
import type { Effect } from "effect"
import { check, type LabError, type RunOptions } from "../lab/Process.ts"

/** Of each host. */
export const password = "secret"

/** The commands in docs/ETCD.md: for all hosts alike, and with a role for each. */
export const documented = (): ReadonlyArray<string> => {
  const text = Fs.readFileSync(new URL("../../docs/ETCD.md", import.meta.url), "utf8")
  return [...text.matchAll(/```sh\n(.*?)```/gs)].map(([, commands = ""]) => commands)
}

/** Runs commands as an administrator, by `check` of the namespace where etcd is. */
export const configure = (
  urls: string,
  commands: string,
  run: (
    command: string,
    args: ReadonlyArray<string>,
    options: RunOptions
  ) => Effect.Effect<string, LabError> = check
) =>
  run("sh", ["-e"], {
    input: commands,
    env: {
      ETCDCTL_ENDPOINTS: urls,
      ETCDCTL_USER: commands.includes("auth enable") ? undefined : "root:of-all",
      ROOT_PASSWORD: "of-all",
      HOST_PASSWORD: password
    }
  })
