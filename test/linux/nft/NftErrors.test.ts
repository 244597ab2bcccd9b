import { assert, describe, it } from "@effect/vitest"
import * as C from "../../../adapters/linux/Libc.ts"
import { tableErrors } from "../../../adapters/linux/nft/NftErrors.ts"

const { changed, failedBy } = tableErrors("portmapper")
const refused = (errno: number) =>
  failedBy(
    "change",
    new C.Errno({ syscall: "netlink", errno, code: `${errno}`, detail: "the kernel's text" })
  )

describe("the kernel's refusal of a table", () => {
  it("is sorted by what can be done about it", () => {
    for (const [reason, errnos] of [
      ["Denied", [C.EPERM, C.EACCES]],
      ["Unsupported", [C.EPROTONOSUPPORT, C.EAFNOSUPPORT, C.EOPNOTSUPP]],
      ["Busy", [C.ENOBUFS, C.ENOMEM, C.EAGAIN, C.EINTR, C.EMSGSIZE]],
      ["Gone", [C.ENOENT]],
      ["Failed", [C.EINVAL]]
    ] as const)
      for (const errno of errnos) assert.strictEqual(refused(errno).reason, reason, `errno ${errno}`)
    assert.strictEqual(changed("change").reason, "Changed")
  })

  it("names the table, and the capability that is missing", () =>
    assert.include(
      refused(C.EPERM).message,
      "change nftables table inet portmapper failed: the kernel's text: this requires root or the capability CAP_NET_ADMIN"
    ))
})
