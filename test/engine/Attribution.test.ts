import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import { IpNetwork } from "effect/net"
import { attribute, type HostAddress, type View } from "../../adapters/engine/Attribution.ts"
import type { Container } from "../../adapters/engine/Engine.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import { mapping } from "../support/mappings.ts"
import { attachment, container, network } from "./containers.ts"

const subnets = ["172.17.0.0/16"].map((text) => Result.getOrThrow(IpNetwork.fromString(text)))
const at = (address: string, more: Parameters<typeof attachment>[2] = {}) =>
  attachment("bridge", address, { subnets, ...more })
const unplaced = { ...at("172.17.0.2"), v4: undefined }

const web = container("web", { attachments: [at("172.17.0.2")] })
const other = container("other", { attachments: [at("172.17.0.2")] })
const host: ReadonlyArray<HostAddress> = [{ name: "br-bridge", address: addressUnsafe("172.17.0.1") }]

const view = (containers: ReadonlyArray<Container>, more: Partial<View> = {}): View => ({
  engine: "engine",
  containers,
  networks: [network("bridge", { subnets })],
  ...more
})

const asked = (belongsTo: string | undefined) => ({
  mapping: mapping("tcp 0.0.0.0 172.17.0.2:80", 8080, { container: belongsTo }),
  askedMillis: 10_000
})

const webs = `engine ${web.id}`
const id = web.id.slice(0, 12)

describe("a mapping whose container is unknown", () => {
  const cases: ReadonlyArray<readonly [string, View, boolean, ReadonlyArray<HostAddress>?]> = [
    ["belongs to the running container that has the address", view([web]), true],
    ["belongs to none where nobody has it", view([]), false],
    ["belongs to none of two that have it", view([web, other]), false],
    ["belongs to none that does not run", view([{ ...web, running: false }]), false],
    ["belongs to none that was created later", view([{ ...web, createdMillis: 11_000 }]), false],
    ["belongs to none of an Engine without an id", view([web], { engine: "" }), false],
    [
      "belongs to none on a network that is no bridge",
      view([{ ...web, attachments: [at("172.17.0.2", { driver: "macvlan" })] }]),
      false
    ],
    ["belongs to none where this host has no such bridge", view([web]), false, []],
    [
      "belongs to none where the bridge has another subnet",
      view([web]),
      false,
      [{ name: "br-bridge", address: addressUnsafe("172.18.0.1") }]
    ],
    [
      "belongs to none where another interface has the subnet",
      view([web]),
      false,
      [{ name: "eth0", address: addressUnsafe("172.17.0.1") }]
    ]
  ]
  for (const [title, seen, belongs, addresses = host] of cases)
    it(title, () => {
      assert.deepStrictEqual(
        attribute(seen, asked(undefined), addresses),
        belongs ? { _tag: "BelongsTo", container: webs } : { _tag: "Doubtful" }
      )
    })
})

describe("a mapping whose container is known", () => {
  const ended = { ...web, running: false, ended: true, attachments: [] }
  const cases: ReadonlyArray<readonly [string, View, "BelongsTo" | "Doubtful" | string]> = [
    ["stays with a container that has the address", view([web]), "BelongsTo"],
    ["is gone with one that was removed", view([other]), `container ${id} was removed`],
    ["is gone with one that ended", view([ended, other]), `container web (${id}) ended`],
    [
      "is gone with one that has another address",
      view([{ ...web, attachments: [at("172.17.0.9")] }]),
      `container web (${id}) has another address`
    ],
    [
      "is gone with one that is in no network any more",
      view([{ ...web, attachments: [] }]),
      `container web (${id}) has another address`
    ],
    ["is in doubt where another Engine answers", view([], { engine: "another" }), "Doubtful"],
    ["is in doubt while it is being restarted", view([{ ...ended, ended: false }]), "Doubtful"],
    [
      "is in doubt while one of its addresses is unknown",
      view([{ ...web, attachments: [at("172.17.0.9"), unplaced] }]),
      "Doubtful"
    ],
    [
      "is in doubt where the Engine doesn't show the network",
      view([{ ...web, attachments: [] }], { networks: [] }),
      "Doubtful"
    ]
  ]
  for (const [title, seen, expected] of cases)
    it(title, () => {
      const found = attribute(seen, asked(webs), [])
      assert.strictEqual(found._tag === "Gone" ? found.why : found._tag, expected)
    })
})
