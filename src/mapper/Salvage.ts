/**
 * Mappings read back from the kernel's rules, where the record of them is lost: what was redirected goes on being so.
 */
import { IpNetwork } from "effect/net"
import type { Redirect, Rule } from "../firewall/Firewall.ts"
import type { Mapping } from "./Mapping.ts"

/** The owner of what is read back: it is no longer known who asked for it. Who confirms it takes it over. */
export const unknownOwner = "unknown"

/**
 * A redirection is a mapping in `nat` mode, and its sources are the label that asked for them (one that lets nobody in is
 * no label's wish, and left out). A rule of another kind does not say where its port leads to, and what was only relayed
 * has no rule at all: neither can be read back.
 */
export const salvage = (rules: ReadonlyArray<Rule>, nowMillis: number): ReadonlyArray<Mapping> =>
  rules
    .filter((rule) => rule._tag === "Redirect")
    .filter(({ allow }) => allow === undefined || allow.length > 0)
    .map((rule) => ({
      protocol: rule.protocol,
      host: rule.host,
      asked: rule.host.text,
      port: rule.port,
      backend: rule.backend,
      mode: "nat",
      labels: labelsOf(rule),
      owner: unknownOwner,
      epoch: 0,
      sinceMillis: nowMillis
    }))

const labelsOf = ({ allow }: Redirect): Mapping["labels"] =>
  new Map(
    allow === undefined
      ? []
      : [["portmapper.allow", allow.map((network) => IpNetwork.format(network)).join(",")]]
  )
