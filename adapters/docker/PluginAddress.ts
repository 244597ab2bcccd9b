/** Where a plugin listens, as the Engine's spec files and our `--url` write it. */
import { Result } from "effect"

/**
 * `Pipe` is a Unix socket's path or a Windows pipe's name; `Net` a host (an IPv6 address without brackets) and a port.
 * `text` is the form for messages.
 */
export type PluginAddress =
  | { readonly _tag: "Pipe"; readonly path: string; readonly text: string }
  | {
      readonly _tag: "Net"
      readonly host: string
      readonly port: number
      readonly tls: boolean
      readonly text: string
    }

export const socketAddress = (path: string): PluginAddress => ({ _tag: "Pipe", path, text: path })

/**
 * `unix:///run/p.sock`, `npipe:////./pipe/p`, `http://…`, `https://…`; `tcp://…` is HTTPS if `tls`: the caller has TLS
 * files. The failure is a clause that messages put after the URL.
 */
export const parsePluginUrl = (text: string, tls: boolean): Result.Result<PluginAddress, string> => {
  const pipe = /^(unix|npipe):\/\/(\/.+)$/.exec(text)
  if (pipe !== null) {
    const path = pipe[2] ?? ""
    return Result.succeed({
      _tag: "Pipe",
      path: pipe[1] === "npipe" ? path.replaceAll("/", "\\") : path,
      text: path
    })
  }
  const net = /^(http|https|tcp):\/\/(?:\[([^\]/]+)\]|([^:/[\]@]+))(?::(\d{1,5}))?\/?$/.exec(text)
  if (net === null)
    return Result.fail("expected unix:///PATH, http://HOST:PORT, https://HOST:PORT or tcp://HOST:PORT")
  const [, scheme, v6, name, digits] = net
  const secure = scheme === "https" || (scheme === "tcp" && tls)
  if (tls && !secure) return Result.fail("the TLS files are for https:// or tcp://")
  if (digits === undefined && scheme === "tcp") return Result.fail("the port is missing")
  const port = digits === undefined ? (secure ? 443 : 80) : Number(digits)
  if (port < 1 || port > 65535) return Result.fail("ports are 1 to 65535")
  const host = v6 ?? name ?? ""
  return Result.succeed({
    _tag: "Net",
    host,
    port,
    tls: secure,
    text: `${secure ? "https" : "http"}://${v6 === undefined ? host : `[${host}]`}:${port}`
  })
}
