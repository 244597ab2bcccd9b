import { assert, describe, it } from "@effect/vitest"
import type { Packet } from "../../adapters/doctor/Packet.ts"
import { type PacketPath, type Published, pathsOf } from "../../adapters/doctor/PacketPath.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import { published } from "./published.ts"

const placeText = (place: Packet["destination"], port: number | undefined) =>
  `${place === undefined ? "*" : place.join(".")}:${port ?? "*"}`

/** `prerouting eth0>- *:* to 192.0.2.1:8080 new`. */
const pathText = (path: PacketPath) =>
  path.map(({ hook, packet: { iif, oif, source, sourcePort, destination, destinationPort, state } }) =>
    [
      `${hook} ${iif ?? "-"}>${oif ?? "-"}`,
      `${placeText(source, sourcePort)} to ${placeText(destination, destinationPort)} ${state}`
    ].join(" ")
  )

const paths = (more: Partial<Published>, mark = 0) => pathsOf(published(more), mark)

describe("the packets of a published port", () => {
  it("are translated on their way in where the kernel redirects, and forwarded both ways", () => {
    assert.deepStrictEqual(paths({ traffic: "redirected" }).map(pathText), [
      [
        "prerouting eth0>- *:* to 192.0.2.1:8080 new",
        "prerouting eth0>- *:* to 172.17.0.2:80 new",
        "forward eth0>docker0 *:* to 172.17.0.2:80 new",
        "postrouting eth0>docker0 *:* to 172.17.0.2:80 new"
      ],
      [
        "prerouting docker0>- 172.17.0.2:80 to *:* established",
        "forward docker0>eth0 172.17.0.2:80 to *:* established",
        "postrouting docker0>eth0 172.17.0.2:80 to *:* established"
      ]
    ])
  })

  it("pass the chains before the translation as they came, and those from its priority on translated", () => {
    const [[before, after] = []] = paths({ traffic: "redirected" }, 0x10)
    assert.deepStrictEqual(
      [before, after].map((hop) => hop && { from: hop.from, to: hop.to, mark: hop.packet.mark }),
      [
        { from: undefined, to: -100, mark: 0 },
        { from: -100, to: undefined, mark: 0x10 }
      ]
    )
    assert.deepStrictEqual(after?.packet.original.port, 8080)
    assert.isTrue(after?.packet.redirected)
  })

  it("end at the host and begin there again where they are relayed", () => {
    assert.deepStrictEqual(paths({ traffic: "relayed" }).map(pathText), [
      ["prerouting eth0>- *:* to 192.0.2.1:8080 new", "input eth0>- *:* to 192.0.2.1:8080 new"],
      [
        "output ->eth0 192.0.2.1:8080 to *:* established",
        "postrouting ->eth0 192.0.2.1:8080 to *:* established"
      ],
      ["output ->docker0 *:* to 172.17.0.2:80 new", "postrouting ->docker0 *:* to 172.17.0.2:80 new"],
      [
        "prerouting docker0>- 172.17.0.2:80 to *:* established",
        "input docker0>- 172.17.0.2:80 to *:* established"
      ]
    ])
  })

  it("are of the frontend's family as far as the relay, and of the backend's behind it", () => {
    const families = paths({ traffic: "relayed", host: addressUnsafe("::") }).map(
      (path) => path[0]?.packet.family
    )
    assert.deepStrictEqual(families, [6, 6, 4, 4])
  })

  it("are forwarded as they are where they are routed", () => {
    assert.deepStrictEqual(paths({ traffic: "routed" }).map(pathText), [
      [
        "prerouting eth0>- *:* to 172.17.0.2:80 new",
        "forward eth0>docker0 *:* to 172.17.0.2:80 new",
        "postrouting eth0>docker0 *:* to 172.17.0.2:80 new"
      ],
      [
        "prerouting docker0>- 172.17.0.2:80 to *:* established",
        "forward docker0>eth0 172.17.0.2:80 to *:* established",
        "postrouting docker0>eth0 172.17.0.2:80 to *:* established"
      ]
    ])
  })
})
