import * as Os from "node:os"
import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import { parseEngine } from "../../adapters/engine/EngineAddress.ts"

type Environment = Readonly<Record<string, string>>

const addressText = (url: string | undefined, env: Environment) =>
  Result.match(parseEngine(url, env), {
    onFailure: (text) => text,
    onSuccess: ({ address: { text }, tls }) =>
      tls === undefined ? text : `${text} ${tls.ca} ${tls.cert} ${tls.key} ${tls.verify}`
  })

const files = (folder: string, verify: boolean) =>
  `${folder}/ca.pem ${folder}/cert.pem ${folder}/key.pem ${verify}`

describe("the Engine's address", () => {
  const rows: ReadonlyArray<
    readonly [title: string, url: string | undefined, env: Environment, expected: string]
  > = [
    ["is Docker's own socket by default", undefined, {}, "/var/run/docker.sock"],
    ["comes from DOCKER_HOST", undefined, { DOCKER_HOST: "unix:///run/other.sock" }, "/run/other.sock"],
    ["is the default where DOCKER_HOST is empty", undefined, { DOCKER_HOST: "" }, "/var/run/docker.sock"],
    [
      "comes from --engine before DOCKER_HOST",
      "tcp://[fd00::1]:2375",
      { DOCKER_HOST: "tcp://x:1" },
      "http://[fd00::1]:2375"
    ],
    ["may end with a slash", undefined, { DOCKER_HOST: "tcp://h:2375/" }, "http://h:2375"],
    [
      "uses TLS with the files of DOCKER_CERT_PATH",
      undefined,
      { DOCKER_HOST: "tcp://h:2376", DOCKER_CERT_PATH: "/certs", DOCKER_TLS_VERIFY: "1" },
      `https://h:2376 ${files("/certs", true)}`
    ],
    [
      "is trusted with any certificate without DOCKER_TLS_VERIFY, as by Docker's own clients",
      "tcp://h:2376",
      { DOCKER_CERT_PATH: "/certs" },
      `https://h:2376 ${files("/certs", false)}`
    ],
    [
      "is never dialled in the clear where only DOCKER_TLS_VERIFY is set",
      "tcp://h:2376",
      { DOCKER_TLS_VERIFY: "1" },
      `https://h:2376 ${files(`${Os.homedir()}/.docker`, true)}`
    ],
    [
      "uses TLS files from Docker's configuration folder",
      "tcp://h:2376",
      { DOCKER_TLS_VERIFY: "1", DOCKER_CONFIG: "/etc/docker-client" },
      `https://h:2376 ${files("/etc/docker-client", true)}`
    ],
    ["needs no files by https", "https://h:2376", {}, "https://h:2376"],
    [
      "is refused without a scheme",
      undefined,
      { DOCKER_HOST: "localhost:2375" },
      'DOCKER_HOST "localhost:2375": expected unix:///PATH, http://HOST:PORT, https://HOST:PORT or tcp://HOST:PORT'
    ],
    ["needs a port by tcp", "tcp://h", {}, '--engine "tcp://h": the port is missing'],
    [
      "is refused with ssh",
      undefined,
      { DOCKER_HOST: "ssh://me@h" },
      'DOCKER_HOST "ssh://me@h": ssh:// is not supported; forward the socket by ssh -L and give its unix:// URL'
    ]
  ]
  for (const [title, url, env, expected] of rows)
    it(title, () => assert.strictEqual(addressText(url, env), expected))
})
