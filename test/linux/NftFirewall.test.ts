import { Effect } from "effect"
import { layer } from "../../adapters/linux/NftFirewall.ts"
import { firewallConformance } from "../firewall/firewallConformance.ts"
import { describeInNamespace, run } from "./namespace.ts"

describeInNamespace("NftFirewall", () => {
  firewallConformance(
    "Firewall on nftables",
    layer(),
    Effect.sync(() => void run("nft delete table inet portmapper"))
  )
})
