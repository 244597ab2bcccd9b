/** The expected answer to each recorded request, in order: `done` for an answer without content. */

/** The relay serves an IPv6 frontend of an IPv4 backend; without it such an entry is discarded with the reason. */
export const relayed = true

const by6 = (port: number, backend = "172.31.0.2", protocol = "tcp"): string =>
  relayed
    ? `granted ${port}`
    : `discarded: [::]/${protocol} to ${backend}: the kernel redirects no IPv6 traffic to IPv4, and ${protocol.toUpperCase()} is not relayed`

const onLoopback = (port: number): string =>
  relayed
    ? `granted ${port}`
    : "discarded: 127.0.0.1/tcp to 172.31.0.2: the kernel redirects nothing sent to a loopback address, and TCP is not relayed"

/** A published port of an IPv4-only network, which the Engine requests on both unspecified addresses. */
const both = (port: number, backend?: string, protocol?: string): ReadonlyArray<string> => [
  `granted ${port}`,
  by6(port, backend, protocol)
]

export type Answer = "done" | string | RegExp | ReadonlyArray<string>

const done = "done"
const released = (count: number): ReadonlyArray<Answer> => Array.from({ length: count }, () => done)

const noSctp = "500 bind for 0.0.0.0:8713/sctp failed: SCTP is not supported by this kernel"

/** Ephemeral ports count up from the first of the kernel's range, `first`. */
export const expected = (first: number, sctp: boolean): Readonly<Record<string, ReadonlyArray<Answer>>> => ({
  "run-p-8080-80": [done, both(8080)],
  "restart-8080-80": [...released(2), both(8080)],
  "rm-f-8080-80": released(2),
  "run-p-0-80": [both(first), ...released(2), both(first + 1), ...released(2)],
  "udp-any": [both(9020, undefined, "udp"), ...released(2)],
  labels: [both(8081), ...released(2)],
  "v6-network": [
    ["granted 8086", "granted 8086"],
    ["granted 8087"],
    ["granted 8088", "granted 8088"],
    ...released(5)
  ],
  groups: [
    ["granted 7001", onLoopback(7001)],
    both(7002),
    both(7002, undefined, "udp"),
    both(7100),
    both(7101),
    [`granted ${first + 2}`, `granted ${first + 2}`, by6(first + 2)],
    both(7200),
    both(first + 3),
    ...released(17)
  ],
  "two-nets-gw-change": [
    both(7700, "172.30.7.2"),
    ...released(2),
    both(7700, "172.30.8.2"),
    ...released(2),
    both(7700, "172.30.7.2"),
    ...released(2)
  ],
  "fail-second-group": [
    both(7901),
    both(7900, "172.31.0.3"),
    /^500 bind for 0\.0\.0\.0:7901\/tcp failed: port is already allocated \(held by engine for 172\.31\.0\.2 port 80 since \S+; if that container is gone: portmapper unmap -p 0\.0\.0\.0:7901\/tcp --owner any\)$/,
    ...released(4)
  ],
  "daemon-restart-no-live-restore": [both(8210), ...released(2), done, both(8210), ...released(2)],
  "live-restore": [
    both(8211),
    both(first + 4),
    both(8300),
    done,
    both(8211),
    both(8300),
    both(first + 4),
    ...released(6)
  ],
  "live-restore-kill9": [both(8212), done, both(8212), ...released(2)],
  "kill9-no-live-restore": [done, both(8213), done, both(8213), ...released(2), both(8213), ...released(2)],
  unmap500: [
    done,
    both(8711),
    "500 unmapping 0.0.0.0:8711/tcp failed: changing nftables table inet portmapper failed: the table is gone",
    done,
    // The kernel takes no change at the moment: what is answered again has to be in its table.
    /^500 someone changed the table, and loading /,
    /^500 unmapping 0\.0\.0\.0:8711\/tcp failed: loading nftables table inet portmapper failed: /,
    done
  ],
  "sctp-P": [
    sctp ? ["granted 8713", by6(8713, undefined, "sctp")] : noSctp,
    ...released(2),
    both(first, undefined, "udp"),
    both(first + 5),
    ...released(4)
  ],
  "plugin-killed-mid-call": [
    "400 bad request: the body of MapPorts is empty (unexpected end of JSON input): the connection broke during a first attempt, and the Engine repeats the call without its body; this one changed nothing, try again"
  ]
})
