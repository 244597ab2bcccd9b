import { assert, describe, it } from "@effect/vitest"
import { type Issue, issueText, RequestError } from "../../src/protocol/RequestError.ts"

const issue = (path: string, value = "", rule = "a port"): Issue => ({ path, value, rule })

describe("a bad request", () => {
  it("names the field, the value and the rule", () => {
    assert.strictEqual(
      issueText(issue("Reqs[1].FrontendPort", "65536", "an integer from 0 to 65535")),
      "Reqs[1].FrontendPort = 65536: must be an integer from 0 to 65535"
    )
    assert.strictEqual(issueText(issue("Reqs", "", "a list")), "Reqs: must be a list")
    assert.strictEqual(issueText(issue("", "7", "an object")), "7: must be an object")
  })

  it("is one sentence where there is no value to show, or a text for people", () => {
    assert.strictEqual(issueText(issue("", "", "the body is not JSON")), "the body is not JSON")
    assert.strictEqual(issueText({ ...issue("Reqs[0]", "x"), text: "-p x: no port" }), "-p x: no port")
  })

  it("lists eight issues and counts the rest", () => {
    const issues = Array.from({ length: 11 }, (_, index) => issue(`Reqs[${index}]`))
    assert.match(
      new RequestError({ issues }).message,
      /^bad request: Reqs\[0].*Reqs\[7]: must be a port; and 3 more$/
    )
    assert.notInclude(new RequestError({ issues: issues.slice(0, 8) }).message, "more")
  })
})
