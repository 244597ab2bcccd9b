/**
 * A Debian machine inside the host of a lab: a root made by mmdebstrap, with systemd as its first process and
 * private mounts, processes and control groups. Its network is that of the lab's host. `PORTMAPPER_DEBIAN_ROOT`
 * names a tarball of such a root, made in advance.
 */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmdirSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Effect, Schedule, type Scope } from "effect"
import type { Namespace } from "./Namespace.ts"
import { LabError, type Output, run } from "./Process.ts"
import { patienceMillis } from "./patience.ts"
import { spawn } from "./Running.ts"

export interface Debian {
  /** Its root as this machine sees it, with what is mounted inside. */
  readonly root: string
  /** Any exit code is a success. */
  readonly exec: (script: string) => Effect.Effect<Output, LabError>
  /** Fails unless it exits with 0; returns what it printed on both streams. */
  readonly sh: (script: string) => Effect.Effect<string, LabError>
}

const path = "PATH=/usr/sbin:/usr/bin:/sbin:/bin"

/** The time that a mirror and a loaded machine need. */
const longMillis = 600_000

export const make = Effect.fn("Debian.make")(function* (
  host: Namespace,
  packages: ReadonlyArray<string>
): Effect.fn.Return<Debian, LabError, Scope.Scope> {
  const folder = yield* Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "portmapper-debian-"))),
    (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
  )
  const files = join(folder, "root")
  const made = process.env["PORTMAPPER_DEBIAN_ROOT"]
  const include = `--include=${["systemd", "init-system-helpers", ...packages].join(",")}`
  if (made === undefined)
    yield* succeed("mmdebstrap", ["--quiet", "--variant=minbase", include, "bookworm", files])
  else {
    mkdirSync(files)
    yield* succeed("tar", ["-xf", made, "-C", files])
  }
  const group = yield* controlGroup
  const machine = yield* spawn("nsenter", [`--net=${host.path}`, "sh", "-ec", boot(files, group)], {
    label: "the machine",
    graceMillis: 0
  })
  const children = `/proc/${machine.pid}/task/${machine.pid}/children`
  const init = yield* eventually(() => Number(readFileSync(children, "utf8").trim().split(" ")[0]))
  const exec = (script: string) =>
    run("nsenter", ["-t", String(init), "-a", "env", "-i", path, "sh", "-c", script], {
      label: script,
      timeoutMillis: longMillis
    })
  const sh = (script: string) =>
    Effect.flatMap(exec(script), ({ code, stdout, stderr }) =>
      code === 0
        ? Effect.succeed(stdout + stderr)
        : Effect.fail(new LabError({ operation: script, detail: `${code}: ${stdout}${stderr}` }))
    )
  yield* sh("until systemctl is-system-running --wait | grep -qE 'running|degraded'; do sleep 0.2; done")
  return { root: `/proc/${init}/root`, exec, sh }
})

const succeed = (command: string, args: ReadonlyArray<string>) =>
  Effect.flatMap(run(command, args, { timeoutMillis: longMillis }), ({ code, stderr }) =>
    code === 0 ? Effect.void : Effect.fail(new LabError({ operation: command, detail: stderr }))
  )

/** Where control groups v2 are mounted, beside v1 or alone. */
const controlGroup = Effect.acquireRelease(
  Effect.sync(() => {
    const unified = /^\S+ (\S+) cgroup2 /m.exec(readFileSync("/proc/mounts", "utf8"))?.[1]
    return mkdtempSync(join(unified ?? "/sys/fs/cgroup", "portmapper-debian-"))
  }),
  (path) => Effect.ignore(eventually(() => removeGroups(path)))
)

const removeGroups = (path: string): true => {
  for (const entry of readdirSync(path, { withFileTypes: true }))
    if (entry.isDirectory()) removeGroups(join(path, entry.name))
  rmdirSync(path)
  return true
}

/** `unshare` stays as the parent of the first process, and ends with it. */
const boot = (files: string, group: string): string => `
echo $$ >${group}/cgroup.procs
exec unshare --cgroup --mount --pid --uts --ipc --fork --kill-child sh -ec '
mount --make-rprivate /
mount --bind ${files} ${files}
cd ${files}
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
for device in null zero full random urandom tty; do touch dev/$device; mount --bind /dev/$device dev/$device; done
ln -s pts/ptmx dev/ptmx
pivot_root . mnt
mount --make-rshared /
umount -l /mnt
exec env -i container=lab ${path} /lib/systemd/systemd --log-target=console
'
`

const eventually = <A>(attempt: () => A): Effect.Effect<A, LabError> =>
  Effect.try({
    try: () => {
      const value = attempt()
      if (!value) throw new Error("nothing yet")
      return value
    },
    catch: (error) => new LabError({ operation: "waiting", detail: (error as Error).message })
  }).pipe(Effect.retry({ schedule: Schedule.spaced("50 millis"), times: patienceMillis / 50 }))
