import { assert, it } from "@effect/vitest"
import { tlsProblem } from "../../adapters/node/tlsProblem.ts"

const party = { server: "etcd", authority: "--ca", certificate: "--cert" }
const unknown = "its certificate is of no authority known here (words); give one by --ca"

it.each([
  ["ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED", "etcd asks for a client certificate; give one by --cert"],
  ["ERR_SSL_SSLV3_ALERT_HANDSHAKE_FAILURE", "etcd asks for a client certificate; give one by --cert"],
  ["ERR_SSL_TLSV1_ALERT_UNKNOWN_CA", "etcd does not trust the client certificate (words)"],
  ["ERR_SSL_SSLV3_ALERT_BAD_CERTIFICATE", "etcd does not trust the client certificate (words)"],
  ["ERR_SSL_SSLV3_ALERT_CERTIFICATE_UNKNOWN", "etcd does not trust the client certificate (words)"],
  ["DEPTH_ZERO_SELF_SIGNED_CERT", unknown],
  ["UNABLE_TO_VERIFY_LEAF_SIGNATURE", unknown],
  ["CERT_UNTRUSTED", unknown],
  ["CERT_HAS_EXPIRED", "its certificate does not fit (words)"],
  ["ERR_TLS_CERT_ALTNAME_INVALID", "its certificate does not fit (words)"],
  ["ERR_SSL_WRONG_VERSION_NUMBER", "no TLS was agreed on (words)"],
  ["EPROTO", "no TLS was agreed on (words)"],
  ["ECONNRESET", undefined]
])("a failure by %s is explained by the option that mends it, if it is one of TLS", (code, expected) => {
  assert.strictEqual(tlsProblem(code, "words", party), expected)
})
