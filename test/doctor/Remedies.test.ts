import { assert, describe, it } from "@effect/vitest"
import { pathsOf } from "../../adapters/doctor/PacketPath.ts"
import { remedyOf } from "../../adapters/doctor/Remedies.ts"
import type { Table } from "../../adapters/doctor/Tables.ts"
import { published } from "./published.ts"

/** The remedy for the first packet of this traffic at this hook. */
const remedy = (
  { tool = "nft", family = "inet", name = "filter" }: Partial<Table>,
  base: string,
  hook: "input" | "forward" | "output",
  chains: ReadonlyArray<string> = []
) => {
  const one = published({ traffic: hook === "forward" ? "redirected" : "relayed" })
  const hop = pathsOf(one, 0)
    .flat()
    .find((each) => each.hook === hook)
  if (hop === undefined) throw new Error(`no packet at ${hook}`)
  const made = new Map([base, ...chains].map((chain) => [chain, { name: chain, base: undefined, rules: [] }]))
  return remedyOf({ tool, family, name, chains: made, sets: () => undefined }, base, hop, one)
}

describe("a remedy", () => {
  it("is a rule of the tool that made the table", () => {
    assert.strictEqual(
      remedy({ tool: "nft" }, "fw", "forward"),
      "nft insert rule inet filter fw ct status dnat accept"
    )
    assert.strictEqual(
      remedy({ tool: "nft" }, "in", "input"),
      "nft insert rule inet filter in tcp dport 8080 accept"
    )
    assert.strictEqual(
      remedy({ tool: "iptables-nft", family: "ip" }, "INPUT", "input"),
      "iptables-nft -I INPUT -p tcp --dport 8080 -j ACCEPT"
    )
    assert.strictEqual(
      remedy({ tool: "iptables-legacy", family: "ip6", name: "mangle" }, "FORWARD", "forward"),
      "ip6tables-legacy -t mangle -I FORWARD -m conntrack --ctstate DNAT -j ACCEPT"
    )
  })

  it("stands in DOCKER-USER where Docker has it, since Docker keeps that chain", () =>
    assert.strictEqual(
      remedy({ tool: "iptables-nft", family: "ip" }, "FORWARD", "forward", ["DOCKER-USER"]),
      "iptables-nft -I DOCKER-USER -m conntrack --ctstate DNAT -j ACCEPT"
    ))

  it("is a command of ufw or firewalld where the table is theirs", () => {
    const ufw = { tool: "iptables-nft", family: "ip" } as const
    assert.strictEqual(remedy(ufw, "INPUT", "input", ["ufw-user-input"]), "ufw allow 8080/tcp")
    assert.strictEqual(
      remedy(ufw, "FORWARD", "forward", ["ufw-user-forward"]),
      "ufw route allow proto tcp to 172.17.0.2 port 80"
    )
    const firewalld = { tool: "nft", name: "firewalld" } as const
    assert.strictEqual(
      remedy(firewalld, "filter_INPUT", "input"),
      "firewall-cmd --permanent --add-port=8080/tcp && firewall-cmd --reload"
    )
    assert.strictEqual(
      remedy(firewalld, "filter_FORWARD", "forward"),
      "firewall-cmd: a policy with target ACCEPT from zone ANY to the zone of docker0"
    )
  })
})
