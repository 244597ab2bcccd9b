import { assert, describe, it } from "@effect/vitest"
import { mappingLines } from "../../adapters/cli/mappingTable.ts"
import type { ListedMapping } from "../../src/protocol/Driver.ts"
import type { Protocol } from "../../src/protocol/Protocol.ts"
import { protocolNumber } from "../../src/protocol/Protocol.ts"

const now = Date.UTC(2026, 0, 2)

/** A mapping from `tcp 0.0.0.0 8080 172.17.0.2 80`, with the given fields replaced. */
const mapping = (text: string, more: Partial<ListedMapping> = {}): ListedMapping => {
  const [protocol, frontendIp, port, backendIp, backendPort] = text.split(" ") as [
    Protocol,
    string,
    string,
    string,
    string
  ]
  return {
    protocol: protocolNumber[protocol],
    frontendIp,
    frontendPort: Number(port),
    backendIp,
    backendPort: Number(backendPort),
    mode: "nat",
    owner: "engine",
    state: "live",
    sinceMillis: now - 90_000,
    labels: new Map(),
    connections: 0,
    bytesIn: undefined,
    bytesOut: undefined,
    ...more
  }
}

const text = (mappings: ReadonlyArray<ListedMapping>, width: number) =>
  `\n${mappingLines(mappings, now, width).join("\n")}\n`

describe("the table of mappings", () => {
  it("names the hosts of a cluster, and leaves out what only they know", () => {
    const at = (host: string, address?: string) => ({
      ...{ mode: "", connections: undefined, owner: "cli" },
      at: { host, address }
    })
    const listed = [
      mapping("tcp 10.0.0.2 8081 172.17.0.2 80", { ...at("b", "10.0.0.2"), state: "stale", service: "web" }),
      mapping("tcp 10.0.0.2 8081 172.17.0.3 80", { ...at("c"), frontendIp: "", service: "web" }),
      mapping("tcp - 8080 172.17.0.2 80", { ...at("a"), frontendIp: "", container: "web/0123456789ab" })
    ]
    assert.strictEqual(
      text(listed, 120),
      `
HOST  FRONTEND           BACKEND          CONTAINER  OWNER  STATE  AGE
a     8080/tcp           172.17.0.2:80    web        cli    live    1m
b     10.0.0.2:8081/tcp  web: 1 backend              cli    stale   1m
b                          172.17.0.2:80             cli    stale   1m
c     8081/tcp           web: 1 backend              cli    live    1m
c                          172.17.0.3:80             cli    live    1m
`
    )
  })

  it("ends with the reasons why containers are not published", () => {
    const trouble = (publish: string, error: string) => ({
      owner: "watch",
      state: "conflicted" as const,
      mode: "",
      connections: undefined,
      container: "web",
      reason: error,
      labels: new Map([
        ["portmapper.container", "web"],
        ["portmapper.publish", publish],
        ["portmapper.error", error]
      ])
    })
    const mixed = [
      mapping("tcp 0.0.0.0 8080 172.17.0.3 80", { owner: "watch" }),
      mapping(
        "tcp 0.0.0.0 8081 172.17.0.2 80",
        trouble(
          "8081:80",
          "bind for 0.0.0.0:8081/tcp failed: port is already allocated (held by engine for 172.17.0.2 port 80)"
        )
      ),
      {
        ...mapping("tcp 0.0.0.0 0 - 0", trouble("80:http", "a \u001b[2Jport")),
        frontendIp: "",
        backendIp: ""
      }
    ]
    assert.strictEqual(
      text(mixed, 60),
      `
FRONTEND          BACKEND        MODE  OWNER  STATE
0.0.0.0:8080/tcp  172.17.0.3:80  nat   watch  live
0.0.0.0:8081/tcp  172.17.0.2:80        watch  conflicted
-/tcp             -                    watch  conflicted

web: 8081:80: bind for 0.0.0.0:8081/tcp failed: port is
  already allocated (held by engine for 172.17.0.2 port 80)
web: 80:http: a \\x1b[2Jport
`
    )
  })

  it("ends with the reasons why mappings are not served, too", () => {
    const reason = "address already in use"
    const lines = mappingLines(
      [
        mapping("tcp 0.0.0.0 80 172.17.0.2 80", { state: "conflicted", reason }),
        ...["0.0.0.0", "::"].map((host) =>
          mapping(`tcp ${host} 81 172.17.0.2 81`, {
            container: "web/0123456789ab",
            labels: new Map([["portmapper.publish", "81:81"]]),
            state: "asleep",
            reason
          })
        )
      ],
      now,
      200
    )
    assert.deepStrictEqual(lines.slice(-2), [
      "0.0.0.0:80/tcp: address already in use",
      "web: 81:81: address already in use"
    ])
  })

  it("is sorted by port, protocol and address, and fits a terminal of 80 columns", () => {
    const mixed = [
      mapping("tcp 0.0.0.0 10080 172.17.0.2 80", { connections: 123_456 }),
      mapping("tcp :: 8080 172.17.0.3 80", { mode: "proxy", connections: 7 }),
      mapping("tcp 0.0.0.0 8080 172.17.0.3 80", { mode: "proxy", connections: 3 }),
      mapping("udp 127.0.0.1 53 172.17.0.4 5353", { owner: "cli", sinceMillis: now - 5 * 86_400_000 }),
      mapping("sctp 10.0.0.9 53 172.17.0.4 53", { owner: "watch", state: "stale" }),
      mapping("tcp 0.0.0.0 0 172.17.0.5 443", { mode: "routed", connections: undefined }),
      mapping("tcp 10.0.0.10 53 172.17.0.4 53"),
      mapping("tcp 10.0.0.9 53 172.17.0.4 53", { state: "unconfirmed" })
    ]
    assert.strictEqual(
      text(mixed, 80),
      `
FRONTEND           BACKEND          MODE    OWNER   STATE        AGE  CONNS
10.0.0.9:53/tcp    172.17.0.4:53    nat     engine  unconfirmed   1m      0
10.0.0.10:53/tcp   172.17.0.4:53    nat     engine  live          1m      0
127.0.0.1:53/udp   172.17.0.4:5353  nat     cli     live          5d      0
10.0.0.9:53/sctp   172.17.0.4:53    nat     watch   stale         1m      0
0.0.0.0:8080/tcp   172.17.0.3:80    proxy   engine  live          1m      3
[::]:8080/tcp      172.17.0.3:80    proxy   engine  live          1m      7
0.0.0.0:10080/tcp  172.17.0.2:80    nat     engine  live          1m   123k
-/tcp              172.17.0.5:443   routed  engine  live          1m      -
`
    )
  })

  it("drops the byte columns first where the width does not suffice, then the connections, then the age", () => {
    const proxied = [
      mapping("tcp 0.0.0.0 80 172.17.0.3 80", { mode: "proxy", bytesIn: 0, bytesOut: 999 }),
      mapping("tcp :: 80 172.17.0.3 80", { mode: "proxy", bytesIn: 1234, bytesOut: 56_700_000 })
    ]
    assert.strictEqual(
      text(proxied, 80),
      `
FRONTEND        BACKEND        MODE   OWNER   STATE  AGE  CONNS      IN     OUT
0.0.0.0:80/tcp  172.17.0.3:80  proxy  engine  live    1m      0      0B    999B
[::]:80/tcp     172.17.0.3:80  proxy  engine  live    1m      0  1.23kB  56.7MB
`
    )
    assert.match(text(proxied, 75), /^\nFRONTEND {8}BACKEND {8}MODE {3}OWNER {3}STATE {2}AGE {2}CONNS\n/)
    assert.match(text(proxied, 60), /^\nFRONTEND {8}BACKEND {8}MODE {3}OWNER {3}STATE {2}AGE\n/)
    assert.match(text(proxied, 54), /^\nFRONTEND {8}BACKEND {8}MODE {3}OWNER {3}STATE\n/)
  })

  it("puts long IPv6 backends below their frontends, and cuts only owners", () => {
    const six = [
      mapping("tcp :: 8080 fd12:3456:789a:1::2 80"),
      mapping("udp 2001:db8:1:2:3:4:5:6 65535 fd12:3456:789a:1:ffff:ffff:ffff:ffff 65535", {
        state: "conflicted",
        owner: "cni:3f1c9a2b7d5e4f60718293a4b5c6d7e8f901/eth0"
      })
    ]
    assert.strictEqual(
      text(six.slice(0, 1), 80),
      `
FRONTEND       BACKEND                   MODE  OWNER   STATE  AGE  CONNS
[::]:8080/tcp  [fd12:3456:789a:1::2]:80  nat   engine  live    1m      0
`
    )
    assert.strictEqual(
      text(six, 80),
      `
FRONTEND -> BACKEND               MODE  OWNER             STATE       AGE  CONNS
[::]:8080/tcp                     nat   engine            live         1m      0
  -> [fd12:3456:789a:1::2]:80
[2001:db8:1:2:3:4:5:6]:65535/udp  nat   cni:3f1c…01/eth0  conflicted   1m      0
  -> [fd12:3456:789a:1:ffff:ffff:ffff:ffff]:65535
`
    )
    assert.strictEqual(
      text(six, 40),
      `
[::]:8080/tcp
  -> [fd12:3456:789a:1::2]:80
  nat  engine  live  1m
[2001:db8:1:2:3:4:5:6]:65535/udp
  -> [fd12:3456:789a:1:ffff:ffff:ffff:ffff]:65535
  nat  cni:3f1…01/eth0  conflicted  1m
`
    )
  })

  it("shows labels where there is room, and whole where the width is unknown", () => {
    const labelled = [
      mapping("tcp 0.0.0.0 80 172.17.0.2 80", {
        labels: new Map([
          ["com.docker.compose.project", "webshop"],
          ["note", "a\u001b[31mred\nline"],
          ["name", "ウェブ"]
        ])
      }),
      mapping("tcp 0.0.0.0 81 172.17.0.2 81")
    ]
    assert.notInclude(text(labelled, 80), "LABELS")
    assert.strictEqual(
      text(labelled, 100),
      `
FRONTEND        BACKEND        MODE  OWNER   STATE  AGE  CONNS  LABELS
0.0.0.0:80/tcp  172.17.0.2:80  nat   engine  live    1m      0  com.docker.compose.project=webshop,…
0.0.0.0:81/tcp  172.17.0.2:81  nat   engine  live    1m      0
`
    )
    assert.include(
      text(labelled, Number.POSITIVE_INFINITY),
      "  com.docker.compose.project=webshop,note=a\\x1b[31mred\\x0aline,name=ウェブ\n"
    )
  })

  it("puts a service above its backends, with their sums", () => {
    const web = { service: "shop/web", owner: "watch", bytesIn: 1000, bytesOut: 50 }
    const rows = [
      mapping("tcp 0.0.0.0 80 172.17.0.3 8080", {
        ...web,
        container: "shop-web-2/0123456789ab",
        labels: new Map([["portmapper.container", "shop-web-2/0123456789ab"]]),
        slots: { has: 64, of: 64 },
        connections: 3,
        sinceMillis: now - 3_600_000
      }),
      mapping("tcp 0.0.0.0 443 172.17.0.9 443", { container: "ba9876543210" }),
      mapping("tcp 0.0.0.0 80 172.17.0.2 8080", {
        ...web,
        slots: { has: 0, of: 64 },
        connections: 4,
        state: "conflicted"
      })
    ]
    assert.strictEqual(
      text(rows, 120),
      `
FRONTEND         BACKEND               CONTAINER     SLOTS  MODE  OWNER   STATE       AGE  CONNS      IN   OUT
0.0.0.0:80/tcp   shop/web: 2 backends                       nat   watch   conflicted   1h      7  2.00kB  100B
                   172.17.0.2:8080                    0/64  nat   watch   conflicted   1m      4  1.00kB   50B
                   172.17.0.3:8080     shop-web-2    64/64  nat   watch   live         1h      3  1.00kB   50B
0.0.0.0:443/tcp  172.17.0.9:443        ba9876543210         nat   engine  live         1m      0       -     -
`
    )
    assert.match(text(rows, 100), /^\nFRONTEND +BACKEND +CONTAINER +SLOTS +MODE +OWNER +STATE +AGE +CONNS\n/)
    assert.match(text(rows, 80), /^\nFRONTEND +BACKEND +MODE +OWNER +STATE +AGE +CONNS\n/)
  })

  it("names the interface of a service while that has no address", () => {
    const labels = new Map([
      ["portmapper.to", "172.17.0.2"],
      ["portmapper.publish", "eth0:80:80"]
    ])
    const waiting = { frontendIp: "", labels, service: "web", state: "conflicted" } as const
    assert.match(
      text([{ ...mapping("tcp 0.0.0.0 80 172.17.0.2 80"), ...waiting }], 120),
      /\neth0:80\/tcp +web: 1 backend +nat +engine +conflicted +1m +0\n/
    )
  })

  it("shows a service as live while one backend takes connections", () => {
    const states = (...all: ReadonlyArray<ListedMapping["state"]>) =>
      text(
        all.map((state, index) =>
          mapping(`tcp 0.0.0.0 80 172.17.0.${2 + index} 80`, { service: "web", state })
        ),
        100
      )
    assert.match(states("drained", "live", "waiting"), /web: 3 backends +nat +engine +live /)
    assert.match(states("drained", "waiting"), /web: 2 backends +nat +engine +waiting /)
  })

  it("counts what is open to drained backends, and shows no address of one that is asleep", () => {
    const web = { service: "web", state: "drained" } as const
    const rows = [
      mapping("tcp 0.0.0.0 80 172.17.0.2 80", { ...web, open: 12 }),
      mapping("tcp 0.0.0.0 80 100::1 80", { ...web, open: 0, container: "web-2/0123456789ab" })
    ]
    assert.strictEqual(
      text(rows, 100),
      `
FRONTEND        BACKEND          CONTAINER  MODE  OWNER   STATE    AGE  CONNS  OPEN
0.0.0.0:80/tcp  web: 2 backends             nat   engine  drained   1m      0
                  172.17.0.2:80             nat   engine  drained   1m      0    12
                  -              web-2      nat   engine  drained   1m      0     0
`
    )
  })

  it("shows what was refused, by reason, where anything was", () => {
    const web = { service: "web", labels: new Map([["a", "b"]]) }
    const rows = [
      mapping("tcp 0.0.0.0 80 172.17.0.3 80", { ...web, refused: { allow: 0, rate: 12_000 } }),
      mapping("tcp 0.0.0.0 80 172.17.0.2 80", { ...web, refused: { allow: 3, rate: 0 } }),
      mapping("tcp 0.0.0.0 81 172.17.0.2 81", { refused: { connections: 0 } })
    ]
    assert.strictEqual(
      text(rows, 100),
      `
FRONTEND        BACKEND          MODE  OWNER   STATE  AGE  CONNS  REFUSED              LABELS
0.0.0.0:80/tcp  web: 2 backends  nat   engine  live    1m      0  3 allow, 12000 rate
                  172.17.0.2:80  nat   engine  live    1m      0  3 allow              a=b
                  172.17.0.3:80  nat   engine  live    1m      0  12000 rate           a=b
0.0.0.0:81/tcp  172.17.0.2:81    nat   engine  live    1m      0
`
    )
    assert.notInclude(text(rows.slice(2), 100), "REFUSED")
  })

  it("has its header also without a mapping", () => {
    assert.strictEqual(text([], 80), "\nFRONTEND  BACKEND  MODE  OWNER  STATE  AGE  CONNS\n")
  })
})
