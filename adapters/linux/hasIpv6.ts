/** Whether this network namespace has IPv6: a socket can be bound to `::` even where it is disabled. */
import { readFileSync } from "node:fs"

/** False where the kernel has no IPv6, or it is disabled and no interface has an address by a setting of its own. */
export const hasIpv6 = (): boolean => {
  try {
    const addresses = readFileSync("/proc/net/if_inet6", "utf8")
    const disabled = readFileSync("/proc/sys/net/ipv6/conf/all/disable_ipv6", "utf8")
    return addresses !== "" || disabled.trim() !== "1"
  } catch {
    return false
  }
}
