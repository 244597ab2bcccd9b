import { assert, describe, it } from "@effect/vitest"
import { dropsIn, filter } from "./published.ts"

const relayed = { traffic: "relayed" } as const

describe("drops in iptables tables", () => {
  it("are rules for the backend, its bridge, its port or everything, and no rules for others", () => {
    for (const rule of [
      "-A FORWARD -j DROP",
      "-A FORWARD -o docker0 -m conntrack --ctstate NEW -j REJECT --reject-with icmp-port-unreachable",
      "-A FORWARD ! -i docker0 -o docker0 -j DROP",
      "-A FORWARD -d 172.17.0.0/16 -p tcp -m tcp --dport 80 -j DROP",
      "-A FORWARD -p tcp -m multiport --dports 22,79:81 -j DROP",
      "-A FORWARD -i eth+ -m conntrack ! --ctstate RELATED,ESTABLISHED -j DROP",
      "-A FORWARD -m conntrack --ctorigdstport 8080 --ctdir ORIGINAL -j DROP",
      "-A FORWARD -p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -j DROP",
      '-A FORWARD -m comment --comment "no \\"new\\" ones" -j DROP'
    ])
      assert.deepStrictEqual(dropsIn(filter(rule)), [`forward FORWARD: ${rule}`])
    for (const rule of [
      "-A FORWARD -i docker0 -o docker0 -j DROP",
      "-A FORWARD -d 172.18.0.0/16 -j DROP",
      "-A FORWARD -p udp -j DROP",
      "-A FORWARD -p tcp -m tcp --dport 8080 -j DROP",
      "-A FORWARD -m conntrack --ctstate INVALID -j DROP",
      "-A FORWARD -m conntrack ! --ctstate DNAT -j DROP",
      "-A FORWARD -m physdev --physdev-is-bridged -j DROP",
      "-A FORWARD -m mark --mark 0x1/0x1 -j DROP",
      "-A INPUT -j DROP"
    ])
      assert.deepStrictEqual(dropsIn(filter(rule)), [], rule)
  })

  it("exclude rules for one source, over a limit, or with matches that can't be evaluated", () => {
    for (const rule of [
      "-A FORWARD -s 203.0.113.7/32 -j DROP",
      "-A FORWARD -m set --match-set f2b-sshd src -j REJECT",
      "-A FORWARD -m connlimit --connlimit-above 100 --connlimit-mask 32 --connlimit-saddr -j DROP",
      "-A FORWARD -m recent --update --seconds 60 --hitcount 10 --name DEFAULT --mask 255.255.255.255 --rsource -j DROP",
      '-A FORWARD -m string --string "BitTorrent" --algo bm --to 65535 -j DROP',
      "-A FORWARD -m hashlimit --hashlimit-above 10/sec --hashlimit-mode srcip --hashlimit-name x -j DROP"
    ])
      assert.deepStrictEqual(dropsIn(filter(rule)), [], rule)
  })

  it("are reported with the rules that exempt some packets from them", () => {
    assert.deepStrictEqual(
      dropsIn(filter("-P FORWARD DROP\n-A FORWARD -s 10.0.0.0/8 -j ACCEPT")).slice(0, 1),
      ["forward FORWARD: policy drop | -A FORWARD -s 10.0.0.0/8 -j ACCEPT"]
    )
    assert.deepStrictEqual(dropsIn(filter("-A FORWARD ! -s 10.0.0.0/8 -o docker0 -j DROP")), [
      "forward FORWARD: -A FORWARD ! -s 10.0.0.0/8 -o docker0 -j DROP | -A FORWARD ! -s 10.0.0.0/8 -o docker0 -j DROP"
    ])
  })

  it("are found through jumps, returns and marks", () => {
    const rules = `
      -A FORWARD -j first
      -A FORWARD -p tcp -g second
      -A FORWARD -j ACCEPT
      -A first -p tcp -j RETURN
      -A first -j DROP
      -A second -j MARK --set-xmark 0x4/0x4
      -A second -m mark --mark 0x4/0x4 -j third
      -A third -p tcp -m tcp --dport 80 -j REJECT`
    assert.deepStrictEqual(dropsIn(filter(rules)), [
      "forward third: -A third -p tcp -m tcp --dport 80 -j REJECT"
    ])
  })
})

/** The rules of ufw 0.36, without its IPv6 half. */
const ufw = `
  -P INPUT DROP
  -P FORWARD DROP
  -A INPUT -j ufw-before-logging-input
  -A INPUT -j ufw-before-input
  -A INPUT -j ufw-after-input
  -A INPUT -j ufw-reject-input
  -A FORWARD -j ufw-before-forward
  -A FORWARD -j ufw-after-forward
  -A OUTPUT -j ufw-before-output
  -N ufw-before-logging-input
  -N ufw-reject-input
  -A ufw-after-input -p udp -m udp --dport 137 -j ufw-skip-to-policy-input
  -A ufw-before-input -i lo -j ACCEPT
  -A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
  -A ufw-before-input -m conntrack --ctstate INVALID -j ufw-logging-deny
  -A ufw-before-input -m conntrack --ctstate INVALID -j DROP
  -A ufw-before-input -j ufw-not-local
  -A ufw-before-input -d 224.0.0.251/32 -p udp -m udp --dport 5353 -j ACCEPT
  -A ufw-before-input -j ufw-user-input
  -A ufw-not-local -m addrtype --dst-type LOCAL -j RETURN
  -A ufw-not-local -m limit --limit 3/min --limit-burst 10 -j ufw-logging-deny
  -A ufw-not-local -j DROP
  -A ufw-logging-deny -m limit --limit 3/min -j LOG --log-prefix "[UFW BLOCK] "
  -A ufw-skip-to-policy-input -j DROP
  -A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
  -A ufw-before-forward -p icmp -m icmp --icmp-type 3 -j ACCEPT
  -A ufw-before-forward -j ufw-user-forward
  -A ufw-user-input -p tcp -m tcp --dport 22 -j ACCEPT
  -A ufw-before-output -o lo -j ACCEPT
  -A ufw-before-output -j ACCEPT
  -N ufw-user-forward
  -N ufw-after-forward`

describe("drops of ufw", () => {
  it("are its policies, for ports that are not allowed", () => {
    assert.deepStrictEqual(dropsIn(filter(ufw), relayed), ["input INPUT: policy drop"])
    assert.deepStrictEqual(dropsIn(filter(ufw)), ["forward FORWARD: policy drop"])
  })

  it("are none for ports that are allowed", () => {
    const allowed = `${ufw}
      -A ufw-user-input -p tcp -m tcp --dport 8080 -j ACCEPT
      -A ufw-user-forward -d 172.17.0.2/32 -p tcp -m tcp --dport 80 -j ACCEPT`
    assert.deepStrictEqual(dropsIn(filter(allowed), relayed), [])
    assert.deepStrictEqual(dropsIn(filter(allowed)), [])
  })
})
