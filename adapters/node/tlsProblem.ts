/** Whom a client can't agree with on TLS, and the options that say whom to trust and who we are. */
export interface TlsParty {
  readonly server: string
  readonly authority: string
  readonly certificate: string
}

/** OpenSSL's message, and the option that fixes the problem; `undefined` where the code is none of TLS. */
export const tlsProblem = (
  code: string,
  message: string,
  { server, authority, certificate }: TlsParty
): string | undefined => {
  if (/CERTIFICATE_REQUIRED|HANDSHAKE_FAILURE/.test(code))
    return `${server} asks for a client certificate; give one by ${certificate}`
  if (/UNKNOWN_CA|BAD_CERTIFICATE|CERTIFICATE_UNKNOWN/.test(code))
    return `${server} does not trust the client certificate (${message})`
  if (/SELF_SIGNED|UNABLE_TO_(VERIFY|GET)|CERT_UNTRUSTED/.test(code))
    return `its certificate is of no authority known here (${message}); give one by ${authority}`
  if (/CERT_|ALTNAME/.test(code)) return `its certificate does not fit (${message})`
  if (/^ERR_SSL_|^EPROTO$/.test(code)) return `no TLS was agreed on (${message})`
  return undefined
}
