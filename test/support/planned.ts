/** Groups with their plans, as the mapper of a host with all capabilities makes them. */
import { Result } from "effect"
import type { PlannedGroup } from "../../src/mapper/plan/Claims.ts"
import { planGroup } from "../../src/mapper/plan/Plan.ts"
import type { Group } from "../../src/protocol/PortBinding.ts"

export const planned = (asked: Group, index = 0): PlannedGroup => ({
  index,
  group: asked,
  plan: Result.getOrThrow(
    planGroup(asked, {
      defaultMode: "nat",
      natUnavailable: undefined,
      marksAccepted: false,
      relayed: ["tcp", "udp"],
      ipv6: true
    })
  )
})
