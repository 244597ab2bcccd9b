import { assert, describe, it } from "@effect/vitest"
import { checkServices } from "../../adapters/doctor/ServiceCheck.ts"
import type { ListedMapping } from "../../src/protocol/Driver.ts"
import { listedMapping } from "../support/mappings.ts"

const backend = (number: number, more: Partial<ListedMapping> = {}) =>
  listedMapping({
    backendIp: `172.17.0.${number}`,
    backendPort: 80,
    service: "shop/web",
    slots: { has: 32, of: 64 },
    ...more
  })

const none = { slots: { has: 0, of: 64 } } as const
const conflicted = { ...none, state: "conflicted" } as const

/** As `watch` lists what it does not publish. */
const unpublished = (container: string, reason: string) =>
  backend(9, { state: "conflicted", slots: undefined, container, reason })

describe("the check of services", () => {
  it("is content without any, and with a backend that takes connections", () => {
    const found = (...listed: ReadonlyArray<ListedMapping>) =>
      checkServices(listed).map(({ status, found }) => `${status}: ${found}`)
    assert.deepStrictEqual(found(listedMapping({ state: "conflicted" })), ["ok: none here"])
    assert.deepStrictEqual(
      found(backend(2), backend(3, conflicted), unpublished("web-3", "it has no address")),
      ["ok: each has a backend that takes connections"]
    )
  })

  it("is content with a backend that a connection wakes", () => {
    assert.deepStrictEqual(
      checkServices([
        backend(2, { ...none, state: "asleep" }),
        backend(3, { ...none, state: "drained" })
      ]).map(({ status }) => status),
      ["ok"]
    )
  })

  it("says how a drained backend gets its connections back", () => {
    assert.deepStrictEqual(
      checkServices([
        backend(2, { ...none, state: "drained" }),
        backend(3, { ...none, state: "drained", service: "db", container: "db-1/0123456789ab" }),
        backend(4, { ...none, state: "drained", service: "x", container: "$(reboot)/0123456789ac" })
      ]).map(({ found, remedy }) => [found, remedy]),
      [
        [
          "no backend of service shop/web at 0.0.0.0:8080/tcp takes connections: 172.17.0.2:80: drained",
          "portmapper undrain 172.17.0.2"
        ],
        [
          "no backend of service db at 0.0.0.0:8080/tcp takes connections: db-1: drained",
          "portmapper undrain db-1"
        ],
        [
          "no backend of service x at 0.0.0.0:8080/tcp takes connections: $(reboot): drained",
          "portmapper undrain '$(reboot)'"
        ]
      ]
    )
  })

  it("names each service without one, the reason, and what helps", () => {
    assert.deepStrictEqual(
      checkServices([
        backend(2),
        backend(3, { ...conflicted, service: "db", frontendPort: 5432 }),
        backend(4, { ...conflicted, service: "mail", frontendPort: 25 }),
        { ...unpublished("mail-2", "it has no address"), service: "mail", frontendPort: 25 },
        backend(5, { ...none, state: "waiting", container: "bus-1/0123456789ab", service: "bus" })
      ]).map(({ name, status, found, remedy }) => [name, status, found, remedy]),
      [
        [
          "services",
          "warn",
          "no backend of service db at 0.0.0.0:5432/tcp takes connections: 172.17.0.3:80: conflicted",
          "put that right, or start another backend: portmapper ls"
        ],
        [
          "services",
          "warn",
          "no backend of service mail at 0.0.0.0:25/tcp takes connections: mail-2: it has no address (and 1 more)",
          "put that right, or start another backend: portmapper ls"
        ],
        [
          "services",
          "warn",
          "no backend of service bus at 0.0.0.0:8080/tcp takes connections: bus-1: waiting",
          "docker inspect bus-1 (a failing health check; portmapper.health=ignore does without), or start another backend"
        ]
      ]
    )
  })
})
