/**
 * Podman with its CNI backend, in a lab's host, on a network of `Cni.make`. Its images, containers and state lie in
 * that network's folder, and it has its own `/run`, `/var/lib` and `/dev/shm`. Its only image is a static busybox:
 * it contacts no registry.
 */
import { copyFileSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { Effect, type Scope } from "effect"
import type { Network } from "./Cni.ts"
import type { Namespace } from "./Namespace.ts"
import { check, LabError, type Output, run } from "./Process.ts"
import { spawn } from "./Running.ts"

export interface Podman {
  /** Any exit code is a success. */
  readonly podman: (...args: ReadonlyArray<string>) => Effect.Effect<Output, LabError>
  /** Runs a container that answers HTTP requests with its name, on its port 80. */
  readonly web: (name: string, publish: string, networks?: string) => Effect.Effect<Output, LabError>
}

export interface PodmanOptions {
  /** Whether podman itself binds each published port too, for as long as the container runs. */
  readonly portReservation: boolean
}

export const start = Effect.fn("Podman.start")(function* (
  host: Namespace,
  network: Network,
  { portReservation }: PodmanOptions
): Effect.fn.Return<Podman, LabError, Scope.Scope> {
  const path = (name: string) => join(network.folder, "podman", name)
  for (const name of ["root", "tmp", "rootfs/bin"]) mkdirSync(path(name), { recursive: true })
  const config = path("containers.conf")
  writeFileSync(config, configText(network.folder, portReservation))
  writeFileSync(
    path("storage.conf"),
    `[storage]\ndriver = "vfs"\nrunroot = "/run/podman"\ngraphroot = "${path("root")}"\n`
  )
  const busybox = (yield* check("sh", ["-ec", "command -v busybox"])).trim()
  copyFileSync(busybox, path("rootfs/bin/busybox"))
  symlinkSync("busybox", path("rootfs/bin/sh"))
  yield* check("tar", ["-C", path("rootfs"), "-cf", path("image.tar"), "."])

  // By `nsenter`: `ip netns exec` would hide the control groups.
  const holder = yield* spawn(
    "unshare",
    [
      "--mount",
      "--propagation",
      "private",
      "sh",
      "-ec",
      privateView,
      "sh",
      host.path,
      join(network.folder, "var")
    ],
    { label: "podman's view" }
  )
  yield* holder.waitForLine("ready")
  const podman: Podman["podman"] = (...args) =>
    run(
      "nsenter",
      [
        `--target=${holder.pid}`,
        "--mount",
        `--net=${host.path}`,
        "podman",
        `--tmpdir=${path("tmp")}`,
        "--cgroup-manager=cgroupfs",
        "--runtime=runc",
        ...args
      ],
      {
        env: { PATH: network.path, CONTAINERS_CONF: config, CONTAINERS_STORAGE_CONF: path("storage.conf") },
        label: `podman ${args[0]}`
      }
    )
  const imported = yield* podman("import", path("image.tar"), "lab")
  if (imported.code !== 0) return yield* new LabError({ operation: "podman import", detail: imported.stderr })
  yield* Effect.addFinalizer(() => Effect.ignore(podman("rm", "--all", "--force", "--time=0")))
  return {
    podman,
    web: (name, publish, networks = "labnet") =>
      podman(
        "run",
        "--detach",
        `--name=${name}`,
        `--network=${networks}`,
        `--publish=${publish}`,
        // Within what a lab without CAP_SYS_RESOURCE may set.
        "--ulimit=nofile=1024:1024",
        "--ulimit=nproc=1024:1024",
        "lab",
        "/bin/sh",
        "-c",
        `busybox mkdir /www; echo ${name} > /www/index.html; exec busybox httpd -f -p 80 -h /www`
      )
  }
})

const configText = (folder: string, portReservation: boolean) => `
[network]
network_backend = "cni"
cni_plugin_dirs = ["${join(folder, "bin")}"]
network_config_dir = "${join(folder, "net")}"
[engine]
enable_port_reservation = ${portReservation}
events_logger = "none"
`

const privateView = `
mount --bind "$2" /var/lib
mount -t tmpfs none /run
mount -t tmpfs none /dev/shm
echo ready
exec sleep 600
`
