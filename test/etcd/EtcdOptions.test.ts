import { assert, it } from "@effect/vitest"
import { Result } from "effect"
import { parseEndpoints } from "../../adapters/etcd/EtcdOptions.ts"

it.each([
  ["http://etcd1", ["http://etcd1:2379"]],
  ["https://10.0.0.1:4001/", ["https://10.0.0.1:4001"]],
  ["http://a:1, http://b:2", ["http://a:1", "http://b:2"]],
  ["http://[fd00::1]", ["http://[fd00::1]:2379"]]
])("takes %s", (text, endpoints) => {
  assert.deepStrictEqual(
    Result.getOrThrow(parseEndpoints(text)).map((endpoint) => endpoint.text),
    endpoints
  )
})

it.each([
  ["", '"": expected http://HOST[:PORT] or https://HOST[:PORT]'],
  ["etcd1:2379", '"etcd1:2379": expected http://HOST[:PORT] or https://HOST[:PORT]'],
  ["unix:///run/etcd", '"unix:///run/etcd": expected http://HOST[:PORT] or https://HOST[:PORT]'],
  ["http://a:1,", '"": expected http://HOST[:PORT] or https://HOST[:PORT]'],
  ["http://user@a:1", '"http://user@a:1": expected http://HOST[:PORT] or https://HOST[:PORT]'],
  ["http://a:1/v3", '"http://a:1/v3": expected http://HOST[:PORT] or https://HOST[:PORT]'],
  ["http://a:70000", '"http://a:70000": ports are 1 to 65535'],
  ["http://a,http://a:2379", '"http://a:2379": it is there twice'],
  ["http://a,https://b", '"http://a,https://b": either all are https:// or none is']
])("refuses %s", (text, failure) => {
  assert.deepStrictEqual(parseEndpoints(text), Result.fail(failure))
})
