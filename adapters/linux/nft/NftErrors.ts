/** Turns the kernel's refusals of a table into errors that name the remedy. */
import { FirewallError } from "../../../src/firewall/Firewall.ts"
import * as C from "../Libc.ts"

export const tableErrors = (table: string) => {
  const failed = (operation: string, reason: FirewallError["reason"], detail: string) =>
    new FirewallError({ reason, operation: `${operation} nftables table inet ${table}`, detail })
  const gone = (operation: string) => failed(operation, "Gone", "the table is gone")
  return {
    failed,
    gone,
    changed: (operation: string) => failed(operation, "Changed", "another process changed the table"),
    failedBy: (operation: string, { errno, detail }: C.Errno) => {
      if (errno === C.ENOENT) return gone(operation)
      const reason = reasons[errno] ?? "Failed"
      return failed(operation, reason, `${detail}${remedies[reason] ?? ""}`)
    }
  }
}

/** Others are `Failed`. */
const reasons: Readonly<Record<number, FirewallError["reason"]>> = {
  [C.EPERM]: "Denied",
  [C.EACCES]: "Denied",
  [C.EPROTONOSUPPORT]: "Unsupported",
  [C.EAFNOSUPPORT]: "Unsupported",
  [C.EOPNOTSUPP]: "Unsupported",
  [C.ENOBUFS]: "Busy",
  [C.ENOMEM]: "Busy",
  [C.EAGAIN]: "Busy",
  [C.EINTR]: "Busy",
  [C.EMSGSIZE]: "Busy"
}

const remedies: Partial<Record<FirewallError["reason"], string>> = {
  Denied: ": this requires root or the capability CAP_NET_ADMIN",
  Busy: ": the kernel could not take the change now"
}
