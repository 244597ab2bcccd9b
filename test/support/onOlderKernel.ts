/**
 * Imported before a program (`node --import`), which then runs as on the kernel in `OLDER_KERNEL`. That refuses to
 * load a table as long as the file `LOADS_REFUSED` exists.
 */
import { existsSync } from "node:fs"
import { ENOBUFS, libc } from "../../adapters/linux/Libc.ts"
import { type OlderKernel, olderKernel, sendsNewTable } from "./olderKernel.ts"

const { OLDER_KERNEL: kernel, LOADS_REFUSED: refused = "" } = process.env
const { send, ...others } = libc()
const refusing: typeof send = (fd, bytes, length, flags) =>
  sendsNewTable(bytes, length) && existsSync(refused) ? -ENOBUFS : send(fd, bytes, length, flags)

Object.assign(libc(), olderKernel({ ...others, send: refusing }, kernel as OlderKernel | undefined))
