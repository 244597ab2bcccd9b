/**
 * The one place where host adapters are chosen: what this process may do decides the mode, and everything else follows.
 */
import { Effect, Layer, Option, type Scope } from "effect"
import { Backends } from "../../src/mapper/Backends.ts"
import { Conntrack } from "../../src/firewall/Conntrack.ts"
import { Firewall, type FirewallError } from "../../src/firewall/Firewall.ts"
import type { Mode } from "../../src/mapper/Labels.ts"
import { Mappings } from "../../src/mapper/Mapping.ts"
import { MapperConfig } from "../../src/mapper/MapPorts.ts"
import { MappingStore } from "../../src/mapper/MappingStore.ts"
import { PortMapper } from "../../src/mapper/PortMapper.ts"
import { PortAllocator } from "../../src/ports/PortAllocator.ts"
import type { PortRange } from "../../src/ports/PortRange.ts"
import { Relay } from "../../src/relay/Relay.ts"
import * as LinuxSockets from "../linux/LinuxSockets.ts"
import * as NftFirewall from "../linux/NftFirewall.ts"
import type { Mark } from "./options.ts"

export interface MapperOptions {
  /** `undefined` is `auto`. */
  readonly mode: Mode | undefined
  readonly ephemeral: PortRange | undefined
  readonly acceptMark: Mark | undefined
}
