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

const conflicted = { state: "conflicted", slots: { has: 0, of: 64 } } as const

/** As `watch` lists what it does not publish. */
const waiting = (container: string, error: string) =>
  backend(9, {
    state: "conflicted",
    slots: undefined,
    container,
    labels: new Map([["portmapper.error", error]])
  })

describe("the check of services", () => {
  it("is content without any, and with a backend that takes connections", () => {
    const found = (...listed: ReadonlyArray<ListedMapping>) =>
      checkServices(listed).map(({ status, found }) => `${status}: ${found}`)
    assert.deepStrictEqual(found(listedMapping({ state: "conflicted" })), ["ok: none here"])
    assert.deepStrictEqual(found(backend(2), backend(3, conflicted), waiting("web-3", "it is unhealthy")), [
      "ok: each has a backend that takes connections"
    ])
  })

  it("names each service without one, the reason, and what helps", () => {
    assert.deepStrictEqual(
      checkServices([
        backend(2),
        backend(3, { ...conflicted, service: "db", frontendPort: 5432 }),
        backend(4, { ...conflicted, service: "mail", frontendPort: 25 }),
        { ...waiting("mail-2/0123456789ab", "it is unhealthy"), service: "mail", frontendPort: 25 }
      ]).map(({ name, status, found, remedy }) => [name, status, found, remedy]),
      [
        [
          "services",
          "warn",
          "no backend of service db at 0.0.0.0:5432/tcp takes connections: 172.17.0.3:80: conflicted",
          "free the port, which another process has: portmapper ls; ss -lntup"
        ],
        [
          "services",
          "warn",
          "no backend of service mail at 0.0.0.0:25/tcp takes connections: mail-2: it is unhealthy (and 1 more)",
          "docker inspect mail-2 (a failing health check; portmapper.health=ignore does without), or start another backend"
        ]
      ]
    )
  })
})
