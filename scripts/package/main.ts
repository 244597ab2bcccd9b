/**
 * `npm run package [-- deb|image|plugin]`: the built program as a Debian package (by default), as a container image
 * for `docker load`, or as a folder for `docker plugin create`. Two runs at one commit make the same Debian package.
 */
import { makeDebianPackage } from "./Debian.ts"
import { makeImage, makePlugin } from "./Image.ts"
import { requireCommands } from "./Release.ts"

const [kind = "deb", ...more] = process.argv.slice(2)
if (!["deb", "image", "plugin"].includes(kind) || more.length > 0) {
  console.error("package: expected deb, image or plugin")
  process.exit(2)
}
requireCommands({
  "dpkg-deb": "dpkg",
  strip: "binutils",
  ...(kind === "deb" ? {} : { mmdebstrap: "mmdebstrap" })
})
const deb = await makeDebianPackage()
console.log(kind === "deb" ? deb : kind === "image" ? makeImage(deb) : makePlugin(deb))
