import { assert, it } from "@effect/vitest"
import { serviceName } from "../../src/protocol/ServiceName.ts"

it.each([
  ["cli web", "web"],
  ["watch shop/web", "shop/web"],
  ["watch .shop-web/web", "web"],
  [".web/web", "web"],
  ["/web", "/web"],
  ["web", "web"]
])("the service %j is %j to people", (service, name) => {
  assert.strictEqual(serviceName(service), name)
})
