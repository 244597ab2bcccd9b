import { assert, describe, it } from "@effect/vitest"
import { requestError } from "../../adapters/docker/ClientError.ts"
import { type PluginAddress, socketAddress } from "../../adapters/docker/PluginAddress.ts"
import { HttpCode } from "../../adapters/node/HttpClient.ts"

const pipe = socketAddress("/no/such/portmapper.sock")
const net: PluginAddress = { _tag: "Net", host: "h", port: 1, tls: false, text: "http://h:1" }

const errorOf = (address: PluginAddress, code: string, connected = false) =>
  requestError(address, "ListPorts", { code, message: "the system's text", connected })
const text = (address: PluginAddress, code: string, connected = false) => {
  const error = errorOf(address, code, connected)
  return `${error._tag} ${"reason" in error ? `${error.reason} ` : ""}${error.message}`
}

describe("a request without an answer", () => {
  it("names the socket and the remedy", () => {
    for (const [code, expected] of [
      [
        "ENOENT",
        "CannotConnect NotThere /no/such/portmapper.sock: no such socket; start the plugin with: portmapper serve"
      ],
      [
        "ENOTDIR",
        "CannotConnect NotThere /no/such/portmapper.sock: no such socket; start the plugin with: portmapper serve"
      ],
      [
        "ECONNREFUSED",
        "CannotConnect NotServed /no/such/portmapper.sock: no process listens on this socket; start the plugin with: portmapper serve"
      ],
      ["EACCES", "CannotConnect Denied /no/such/portmapper.sock: permission denied; use sudo"],
      ["ENOTSOCK", "CannotConnect Failed /no/such/portmapper.sock: is no socket"],
      [HttpCode.connectTimeout, "CannotConnect TimedOut /no/such/portmapper.sock: the system's text"],
      ["ETIMEDOUT", "CannotConnect TimedOut /no/such/portmapper.sock: no connection in time"],
      ["EIO", "CannotConnect Failed /no/such/portmapper.sock: the system's text"]
    ] as const)
      assert.strictEqual(text(pipe, code), expected)
  })

  it("names the URL, for which another remedy holds", () => {
    assert.strictEqual(text(net, "ENOTFOUND"), "CannotConnect NotThere http://h:1: no such host")
    assert.strictEqual(
      text(net, "ECONNREFUSED"),
      "CannotConnect NotServed http://h:1: connection refused; is the plugin listening there?"
    )
  })

  it("says which option trusts the other side, or makes it trust us", () => {
    // The alert comes after the handshake, so the client counts as connected.
    const error = errorOf(net, "ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED", true)
    assert.strictEqual("reason" in error ? error.reason : error._tag, "Tls")
    assert.include(error.message, "give one by --tls-cert and --tls-key")
    assert.include(errorOf(net, "UNABLE_TO_VERIFY_LEAF_SIGNATURE").message, "give one by --tls-ca")
  })

  it("is lost once it was sent, and no plugin's answer where it is no HTTP", () => {
    assert.strictEqual(
      text(pipe, "ECONNRESET", true),
      "AnswerLost /no/such/portmapper.sock gave no answer to ListPorts: the connection broke"
    )
    assert.strictEqual(
      text(pipe, HttpCode.answerTimeout, true),
      "AnswerLost /no/such/portmapper.sock gave no answer to ListPorts: the system's text"
    )
    for (const code of ["HPE_INVALID_CONSTANT", HttpCode.tooLong])
      assert.strictEqual(errorOf(pipe, code, true)._tag, "NotTheProtocol", code)
  })
})
