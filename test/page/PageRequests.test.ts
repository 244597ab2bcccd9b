import { assert, describe, it } from "@effect/vitest"
import { type PageHead, pageAnswerOf } from "../../adapters/page/PageRequests.ts"

const hosts = { isOwn: (host: string) => host === "localhost", named: new Set(["ops.example"]) }

const answer = (head: Partial<PageHead>) => {
  const given = { verb: "GET", target: "/", host: "localhost:9080", origin: undefined, site: undefined }
  const found = pageAnswerOf({ ...given, ...head }, hosts)
  return found._tag === "Refusal" ? `${found.status} ${found.reason}` : found._tag
}

const api = { target: "/api/state" }

describe("a request for the page", () => {
  it.each<readonly [string, Partial<PageHead>]>([
    ["File", {}],
    ["File", { verb: "HEAD" }],
    ["File", { target: "/?from=a-bookmark" }],
    ["State", api],
    ["Events", { target: "/api/events" }],
    ["State", { ...api, host: undefined }],
    ["State", { ...api, host: "Ops.Example" }],
    ["State", { ...api, origin: "http://localhost:9080", site: "same-origin" }],
    ["State", { ...api, origin: "https://ops.example", site: "same-origin" }],
    ["File", { site: "cross-site" }]
  ])("gets the %s: %j", (wanted, head) => assert.strictEqual(answer(head), wanted))

  it.each<readonly [RegExp, Partial<PageHead>]>([
    [/^404 "\/api": no such path; known are \/, \/api\/state, \/api\/events$/, { target: "/api" }],
    [/^404 "\/api\/\.\.\/state"/, { target: "/api/../state" }],
    [/^404 "constructor"/, { target: "constructor" }],
    [/^404 "\/PortMapper.MapPorts"/, { verb: "POST", target: "/PortMapper.MapPorts" }],
    ...["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"].map(
      (verb) =>
        [new RegExp(`^405 ${verb} /api/state: the method must be GET or HEAD`), { ...api, verb }] as const
    ),
    [/^421 Host = "evil.example:9080": must be localhost/, { host: "evil.example:9080" }],
    [/^400 Host = "localhost, evil.example": must be given once/, { host: "localhost, evil.example" }],
    [/^403 Origin = "http:\/\/localhost:3000"/, { ...api, origin: "http://localhost:3000" }],
    [/^403 Origin = "null"/, { ...api, origin: "null" }],
    [/^403 Origin = "http:\/\/evil.example"/, { origin: "http://evil.example" }],
    [/^403 Sec-Fetch-Site = same-site/, { ...api, site: "same-site" }],
    [/^403 Sec-Fetch-Site = cross-site/, { target: "/api/events", site: "cross-site" }]
  ])("is refused with %s: %j", (wanted, head) => assert.match(answer(head), wanted))
})
