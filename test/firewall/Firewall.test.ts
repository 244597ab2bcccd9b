import { Firewall, MemoryFirewall } from "../../src/firewall/Firewall.ts"
import { firewallConformance } from "./firewallConformance.ts"

firewallConformance(
  "Firewall in memory",
  Firewall.layerMemory,
  MemoryFirewall.useSync(({ flush }) => flush())
)
