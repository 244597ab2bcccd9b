/**
 * The Debian package: the built program, the Node it was built with, koffi's binary for this machine, and what Debian
 * wants beside them.
 */
import { execFileSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { gzipSync } from "node:zlib"
import { migrations } from "../../adapters/node/MappingSchema.ts"
import { copyrightText } from "./Licences.ts"
import { manualPages } from "./Manual.ts"
import { architecture, date, level, output, packagePath, root, temporary, version } from "./Release.ts"

const deploy = Path.join(root, "deploy")
const folder = temporary("deb")
const place = (path: string, content: string | Buffer, mode = 0o644): void => {
  const target = Path.join(folder, path)
  Fs.mkdirSync(Path.dirname(target), { recursive: true })
  Fs.writeFileSync(target, content)
  Fs.chmodSync(target, mode)
}
const copy = (path: string, source: string, mode = 0o644): void => place(path, Fs.readFileSync(source), mode)
const zipped = (path: string, text: string): void => place(`${path}.gz`, gzipSync(text, { level: 9 }))

const lib = "usr/lib/portmapper"
const node = `/${lib}/node`

const program = (): void => {
  place(
    `${lib}/package.json`,
    `${JSON.stringify({ name: "portmapper", version, type: "module" }, undefined, 2)}\n`
  )
  const bin = Path.join(root, "dist/bin")
  for (const path of Fs.readdirSync(bin, { recursive: true, encoding: "utf8" })) {
    const source = Path.join(bin, path)
    if (!Fs.statSync(source).isFile() || path === "portmapper-cni") continue
    // The package's own Node starts these; they are not commands of their own.
    place(`${lib}/bin/${path}`, Fs.readFileSync(source, "utf8").replace(/^#!.*\n/, "\n"))
  }
  const front = Fs.readFileSync(Path.join(bin, "portmapper-cni"), "utf8")
  const named = front
    .replace("command -v node ", `command -v ${node} `)
    .replace("exec node ", `exec ${node} `)
  if (named.split(node).length !== 3) throw new Error("portmapper-cni does not name node twice")
  place(`${lib}/bin/portmapper-cni`, named, 0o755)
  copy(`${lib}/node`, process.execPath, 0o755)
  execFileSync("strip", [Path.join(folder, lib, "node")])
  place(`${lib}/record`, `${recordVersion}\n`)
  copy(`${lib}/reload`, Path.join(deploy, "debian/reload"), 0o755)
  copy("usr/bin/portmapper", Path.join(deploy, "debian/portmapper"), 0o755)
  Fs.mkdirSync(Path.join(folder, "usr/lib/cni"), { recursive: true })
  Fs.symlinkSync("../portmapper/bin/portmapper-cni", Path.join(folder, "usr/lib/cni/portmapper-cni"))
}

const koffi = (): void => {
  const modules = Path.join(root, "node_modules")
  const target = `${lib}/node_modules`
  const binary = `@koromix/koffi-${process.platform}-${process.arch}`
  for (const path of [
    "koffi/package.json",
    "koffi/index.cjs",
    "koffi/src/koffi/index.cjs",
    "koffi/src/koffi/src/static.cjs",
    `${binary}/package.json`,
    `${binary}/index.js`
  ])
    copy(`${target}/${path}`, Path.join(modules, path))
  const name = `${process.platform}_${process.arch}/koffi.node`
  copy(`${target}/${binary}/${name}`, Path.join(modules, binary, name))
  execFileSync("strip", ["--strip-unneeded", Path.join(folder, target, binary, name)])
  // Fails where a file is missing.
  execFileSync(Path.join(folder, node), [
    "-e",
    `require(${JSON.stringify(Path.join(folder, target, "koffi"))})`
  ])
}

const system = async (): Promise<void> => {
  copy("lib/systemd/system/portmapper.service", Path.join(deploy, "portmapper.service"))
  copy("lib/systemd/system/portmapper.socket", Path.join(deploy, "portmapper.socket"))
  copy("usr/lib/tmpfiles.d/portmapper.conf", Path.join(deploy, "debian/tmpfiles.conf"))
  copy("etc/default/portmapper", Path.join(deploy, "debian/default"))
  const completions = {
    bash: "usr/share/bash-completion/completions/portmapper",
    zsh: "usr/share/zsh/vendor-completions/_portmapper",
    fish: "usr/share/fish/vendor_completions.d/portmapper.fish"
  }
  for (const [shell, path] of Object.entries(completions))
    place(
      path,
      `${output(process.execPath, Path.join(root, "dist/bin/portmapper.js"), "--completions", shell)}\n`
    )
  const day = date.toISOString().slice(0, 10)
  for (const { file, text } of await manualPages(version, day)) zipped(`usr/share/man/man1/${file}`, text)
}

/** By the variables of Debian's own tools; without them, at the address of the last commit. */
const maintainer = `${process.env["DEBFULLNAME"] ?? "portmapper maintainers"} <${process.env["DEBEMAIL"] ?? output("git", "log", "-1", "--format=%ae")}>`

/** The version of the record that this program writes, and reads all up to. */
const recordVersion = String(migrations.length)

const documents = (): void => {
  const doc = "usr/share/doc/portmapper"
  place(`${doc}/copyright`, copyrightText(root))
  place(`${doc}/README.md`, Fs.readFileSync(Path.join(root, "README.md")))
  copy("usr/share/lintian/overrides/portmapper", Path.join(deploy, "debian/lintian-overrides"))
  zipped(
    `${doc}/changelog`,
    `portmapper (${version}) stable; urgency=medium\n\n  * See CHANGELOG.md of the sources.\n\n -- ${maintainer}  ${date.toUTCString().replace("GMT", "+0000")}\n`
  )
}

const control = (): void => {
  const installed = Number(output("du", "-sk", "--apparent-size", folder).split("\t")[0])
  const fields = {
    Package: "portmapper",
    Version: version,
    Architecture: architecture(),
    Maintainer: maintainer,
    "Installed-Size": installed,
    Depends: "libc6 (>= 2.28), libgcc-s1 (>= 3.4), libstdc++6 (>= 8)",
    "Pre-Depends": "init-system-helpers (>= 1.54~)",
    Recommends: "nftables, curl",
    Suggests: "docker.io, iptables, conntrack",
    Section: "net",
    Priority: "optional",
    Description: [
      "port-mapper plugin for container engines",
      "Publishes container ports: one process for all of them, an element of an",
      "nftables map for each, and no rule per port. It serves Docker's port-mapper",
      "protocol, publishes what containers ask for by labels on any Docker Engine,",
      "and is a CNI plugin in the place of portmap."
    ].join("\n ")
  }
  place(
    "DEBIAN/control",
    Object.entries(fields)
      .map(([key, value]) => `${key}: ${value}\n`)
      .join("")
  )
  place("DEBIAN/conffiles", "/etc/default/portmapper\n")
  for (const script of ["preinst", "postinst", "prerm", "postrm"]) {
    const text = Fs.readFileSync(Path.join(deploy, "debian", script), "utf8")
    place(`DEBIAN/${script}`, text.replace("@RECORD@", recordVersion), 0o755)
  }
  const files = Fs.readdirSync(folder, { recursive: true, encoding: "utf8" })
    .filter((path) => !path.startsWith("DEBIAN") && Fs.lstatSync(Path.join(folder, path)).isFile())
    .sort()
  place("DEBIAN/md5sums", `${execFileSync("md5sum", files, { cwd: folder, encoding: "utf8" })}`)
}

/** Returns its path, below the checkout. */
export const makeDebianPackage = async (): Promise<string> => {
  program()
  koffi()
  await system()
  documents()
  control()
  level(folder)
  const target = packagePath("deb")
  output("dpkg-deb", "--root-owner-group", "-Zxz", "-z3", "--threads-max=1", "--build", folder, target)
  return target
}
