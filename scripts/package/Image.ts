/**
 * The program in a root of its own, made of Debian's packages and of ours: as an image in the format of `docker load`,
 * or as the folder of a managed plugin. No registry is asked for anything.
 */
import { execFileSync } from "node:child_process"
import { createHash } from "node:crypto"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { architecture, date, level, output, packagePath, root, temporary, version } from "./Release.ts"

/** What the program is linked with and calls: nft and both kinds of iptables; a shell for `portmapper` inside. */
const packages = ["libc6", "libgcc-s1", "libstdc++6", "nftables", "iptables", "dash"]

/** What nothing in the image reads. Licences stay. */
const unread = [
  "usr/share/man",
  "usr/share/locale",
  "usr/share/lintian",
  "var/cache",
  "var/lib/apt",
  "var/log"
]

const executable = ["/usr/lib/portmapper/node", "/usr/lib/portmapper/bin/portmapper.js"]

/** Asks the plugin's socket as any client would. */
const health = `require("node:http").get({ socketPath: "/run/docker/plugins/portmapper.sock", path: "/healthz" }, ({ statusCode }) => process.exit(statusCode === 200 ? 0 : 1)).on("error", () => process.exit(1))`

/** What is installed of Debian, in a folder. */
const debianRoot = (): string => {
  const folder = Path.join(temporary("root"), "rootfs")
  const include = `--include=${packages.join(",")}`
  output("mmdebstrap", "--quiet", "--variant=extract", include, "bookworm", folder)
  for (const path of [...unread, "dev"]) Fs.rmSync(Path.join(folder, path), { recursive: true, force: true })
  for (const path of ["dev", "proc", "sys", "run", "tmp", "etc"])
    Fs.mkdirSync(Path.join(folder, path), { recursive: true })
  Fs.rmSync(Path.join(folder, "var/run"), { recursive: true, force: true })
  Fs.symlinkSync("../run", Path.join(folder, "var/run"))
  level(folder)
  return folder
}

/** `docker load -i` makes the image `portmapper:VERSION` of it. Returns its path, below the checkout. */
export const makeImage = (deb: string): string => {
  const folder = temporary("image")
  const within = (name: string) => Path.join(folder, name)
  archive(debianRoot(), within("debian.tar"))
  Fs.writeFileSync(
    within("program.tar"),
    execFileSync("dpkg-deb", ["--fsys-tarfile", deb], { cwd: root, maxBuffer: 2 ** 30 })
  )
  const layers = ["debian.tar", "program.tar"]
  const config = {
    architecture: architecture(),
    os: "linux",
    created: date.toISOString(),
    config: {
      Env: ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
      Entrypoint: executable,
      Cmd: ["serve", "--watch"],
      StopSignal: "SIGTERM",
      Labels: { "org.opencontainers.image.version": version },
      Healthcheck: {
        Test: ["CMD", executable[0], "-e", health],
        Interval: 30e9,
        Timeout: 5e9,
        StartPeriod: 10e9,
        Retries: 3
      }
    },
    rootfs: { type: "layers", diff_ids: layers.map((name) => `sha256:${digest(within(name))}`) },
    history: layers.map((name) => ({ created: date.toISOString(), created_by: `npm run package: ${name}` }))
  }
  Fs.writeFileSync(within("config.json"), JSON.stringify(config))
  const manifest = [{ Config: "config.json", RepoTags: [`portmapper:${version}`], Layers: layers }]
  Fs.writeFileSync(within("manifest.json"), JSON.stringify(manifest))
  level(folder)
  const target = packagePath("image.tar")
  archive(folder, Path.join(root, target))
  return target
}

/** `docker plugin create NAME FOLDER` takes it. Returns its path, below the checkout. */
export const makePlugin = (deb: string): string => {
  const target = packagePath("plugin")
  const folder = Path.join(root, target)
  Fs.rmSync(folder, { recursive: true, force: true })
  Fs.mkdirSync(folder, { recursive: true })
  Fs.cpSync(debianRoot(), Path.join(folder, "rootfs"), { recursive: true, verbatimSymlinks: true })
  output("dpkg-deb", "--extract", deb, Path.join(folder, "rootfs"))
  Fs.copyFileSync(Path.join(root, "deploy/plugin.json"), Path.join(folder, "config.json"))
  return target
}

const archive = (folder: string, target: string): void =>
  void output(
    "tar",
    ...["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--format=gnu"],
    ...["-C", folder, "-cf", target, "."]
  )

const digest = (path: string): string => createHash("sha256").update(Fs.readFileSync(path)).digest("hex")
