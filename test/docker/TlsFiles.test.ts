import { createPrivateKey } from "node:crypto"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { readTlsFiles, type TlsFiles } from "../../adapters/docker/TlsFiles.ts"
import { makeCertificates } from "../support/certificates.ts"
import { temporaryFolder } from "../support/folders.ts"

describe("the files of a TLS server", () => {
  it.live("are read where all three fit, else the error names the wrong one and why it is wrong", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      const at = (name: string) => Path.join(folder, name)
      const write = (name: string, text: string) => {
        Fs.writeFileSync(at(name), text)
        return at(name)
      }
      const { ca, client, server } = makeCertificates(folder)
      const files = { certFile: server.cert, keyFile: server.key, caFile: ca.cert }
      assert.strictEqual((yield* readTlsFiles(files)).ca, Fs.readFileSync(ca.cert, "utf8"))
      const lock = { type: "pkcs8", format: "pem", cipher: "aes256", passphrase: "secret" } as const
      write("locked.key", createPrivateKey(Fs.readFileSync(server.key)).export(lock).toString())
      const truncated = Fs.readFileSync(server.cert, "utf8").replace(/\n.{40}/, "\n")
      const rows: ReadonlyArray<readonly [Partial<TlsFiles>, string]> = [
        [{ certFile: at("none.pem") }, `${at("none.pem")}: no such file or directory`],
        [{ keyFile: folder }, `${folder}: illegal operation on a directory`],
        [{ certFile: write("empty.pem", "") }, `${at("empty.pem")}: no PEM certificate is in it`],
        [{ certFile: server.key }, `${server.key}: no PEM certificate is in it`],
        [{ certFile: write("cut.pem", truncated) }, `${at("cut.pem")}: a certificate in it can't be read`],
        [{ keyFile: server.cert }, `${server.cert}: no PEM private key is in it`],
        [
          { keyFile: at("locked.key") },
          `${at("locked.key")}: the key has a passphrase; a key without one is needed`
        ],
        [
          { keyFile: client.key },
          `${client.key}: the key does not belong to the certificate in ${server.cert}`
        ],
        [{ caFile: ca.key }, `${ca.key}: no PEM certificate is in it`],
        [
          { caFile: write("cut-ca.pem", `${Fs.readFileSync(ca.cert, "utf8")}${truncated}`) },
          `${at("cut-ca.pem")}: a certificate in it can't be read`
        ]
      ]
      for (const [wrong, message] of rows)
        assert.strictEqual((yield* Effect.flip(readTlsFiles({ ...files, ...wrong }))).message, message)
    })
  )
})
