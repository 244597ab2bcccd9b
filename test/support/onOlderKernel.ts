/**
 * Imported before a program (`node --import`): it then runs on the kernel that `OLDER_KERNEL` says, which lets it load no
 * table as long as there is a file `LOADS_REFUSED`.
 */
import { existsSync } from "node:fs"
import { ENOBUFS, libc } from "../../adapters/linux/Libc.ts"
import { type OlderKernel, olderKernel, sendsNewTable } from "./olderKernel.ts"

const { OLDER_KERNEL: kernel, LOADS_REFUSED: refused = "" } = process.env
const { send, ...others } = libc()
const refusing: typeof send = (fd, bytes, length, flags) =>
  sendsNewTable(bytes, length) && existsSync(refused) ? -ENOBUFS : send(fd, bytes, length, flags)

Object.assign(libc(), olderKernel({ ...others, send: refusing }, kernel as OlderKernel | undefined))
