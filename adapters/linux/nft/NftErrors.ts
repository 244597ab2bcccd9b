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
    failedBy: (operation: string, { errno, detail }: C.Errno) =>
      errno === C.ENOENT ? gone(operation) : failed(operation, reasonOf(errno), remedied(errno, detail))
  }
}

const reasonOf = (errno: number): FirewallError["reason"] => {
  switch (errno) {
    case C.EPERM:
    case C.EACCES:
      return "Denied"
    case C.EPROTONOSUPPORT:
    case C.EAFNOSUPPORT:
    case C.EOPNOTSUPP:
      return "Unsupported"
    case C.ENOBUFS:
    case C.ENOMEM:
    case C.EAGAIN:
    case C.EINTR:
    case C.EMSGSIZE:
      return "Busy"
    default:
      return "Failed"
  }
}

const remedied = (errno: number, detail: string): string => {
  switch (reasonOf(errno)) {
    case "Denied":
      return `${detail}: this requires root or the capability CAP_NET_ADMIN`
    case "Busy":
      return `${detail}: the kernel could not take the change now`
    default:
      return detail
  }
}
