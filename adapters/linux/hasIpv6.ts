/** Whether this network namespace has IPv6: a socket can be bound to `::` even where it is disabled. */
import { readText } from "../node/FileText.ts"

/** False where the kernel has no IPv6, or it is disabled and no interface has an address by a setting of its own. */
export const hasIpv6 = (): boolean => {
  const addresses = readText("/proc/net/if_inet6")
  const disabled = readText("/proc/sys/net/ipv6/conf/all/disable_ipv6")
  return addresses !== undefined && disabled !== undefined && (addresses !== "" || disabled.trim() !== "1")
}
