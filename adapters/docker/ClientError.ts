/** How a call to a plugin can fail. Each message says what the user can do about it. */
import * as Fs from "node:fs"
import { Schema } from "effect"
import { attempt, readText } from "../node/FileText.ts"
import { HttpCode, type HttpError } from "../node/HttpClient.ts"
import { tlsProblem } from "../node/tlsProblem.ts"
import type { PluginAddress } from "./PluginAddress.ts"

/** No connection. `Denied`: the socket's permissions keep us out. `Tls`: the two sides don't trust each other. */
export class CannotConnect extends Schema.TaggedError<CannotConnect>()("CannotConnect", {
  where: Schema.String,
  reason: Schema.Literals(["NotThere", "NotServed", "Denied", "Tls", "TimedOut", "Failed"]),
  detail: Schema.String
}) {
  override get message(): string {
    return `${this.where}: ${this.detail}`
  }
}

/** The plugin refused the call. `detail` is the plugin's own message to the user. */
export class CallRefused extends Schema.TaggedError<CallRefused>()("CallRefused", {
  where: Schema.String,
  method: Schema.String,
  /** A 200 with a non-empty `Err` is a refusal, too. */
  status: Schema.Number,
  detail: Schema.String
}) {
  override get message(): string {
    return this.detail
  }
}

/** The server is not a plugin, or violates the protocol. */
export class NotTheProtocol extends Schema.TaggedError<NotTheProtocol>()("NotTheProtocol", {
  where: Schema.String,
  method: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `${this.where} answered ${this.method} with what is no plugin's answer: ${this.detail}`
  }
}

/** The plugin does not implement one of our own methods, such as `PortMapper.ListPorts`. */
export class NotOffered extends Schema.TaggedError<NotOffered>()("NotOffered", {
  where: Schema.String,
  method: Schema.String
}) {
  override get message(): string {
    return `the plugin at ${this.where} does not know ${this.method}: only portmapper's own plugin can be asked for that`
  }
}

/** The call was sent and no answer came, so its outcome is unknown. A plugin undoes a call that it can't answer. */
export class AnswerLost extends Schema.TaggedError<AnswerLost>()("AnswerLost", {
  where: Schema.String,
  method: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `${this.where} gave no answer to ${this.method}: ${this.detail}`
  }
}

export type ClientError = CannotConnect | CallRefused | NotTheProtocol | NotOffered | AnswerLost

const plugin = { server: "the plugin", authority: "--tls-ca", certificate: "--tls-cert and --tls-key" }

/** The error of a request without an answer. */
export const requestError = (
  address: PluginAddress,
  method: string,
  { code, message, connected }: Pick<HttpError, "code" | "message" | "connected">
): ClientError => {
  const where = address.text
  if (code.startsWith("HPE_"))
    return new NotTheProtocol({ where, method, detail: `it is no HTTP (${message})` })
  if (code === HttpCode.tooLong) return new NotTheProtocol({ where, method, detail: message })
  if (code === HttpCode.answerTimeout) return new AnswerLost({ where, method, detail: message })
  const tls = tlsProblem(code, message, plugin)
  if (tls !== undefined) return new CannotConnect({ where, reason: "Tls", detail: tls })
  if (connected) return new AnswerLost({ where, method, detail: "the connection broke" })
  return new CannotConnect({ where, ...connectProblem(address, code, message) })
}

const connectProblem = (
  address: PluginAddress,
  code: string,
  message: string
): { readonly reason: CannotConnect["reason"]; readonly detail: string } => {
  const pipe = address._tag === "Pipe"
  switch (code) {
    case "ENOENT":
    case "ENOTDIR":
      return {
        reason: "NotThere",
        detail: pipe ? "no such socket; start the plugin with: portmapper serve" : `no such host (${message})`
      }
    case "ENOTFOUND":
    case "EAI_AGAIN":
      return { reason: "NotThere", detail: "no such host" }
    case "ECONNREFUSED":
      return {
        reason: "NotServed",
        detail: pipe
          ? "no process listens on this socket; start the plugin with: portmapper serve"
          : "connection refused; is the plugin listening there?"
      }
    case "EACCES":
    case "EPERM":
      return { reason: "Denied", detail: `permission denied; ${whoMay(address)}` }
    case "ENOTSOCK":
      return { reason: "Failed", detail: "is no socket" }
    case HttpCode.connectTimeout:
      return { reason: "TimedOut", detail: message }
    case "ETIMEDOUT":
      return { reason: "TimedOut", detail: "no connection in time" }
    default:
      return { reason: "Failed", detail: message }
  }
}

/** Who may use the socket, by its mode. If we can't stat it, only root can enter its folder. */
const whoMay = (address: PluginAddress): string => {
  if (address._tag === "Net") return "use sudo"
  const { gid = 0, mode = 0 } = attempt(() => Fs.statSync(address.path)) ?? {}
  return (mode & 0o020) === 0 || gid === 0 ? "use sudo" : `use sudo, or join the group ${groupName(gid)}`
}

const groupName = (gid: number): string =>
  new RegExp(`^([^:]*):[^:]*:${gid}:`, "m").exec(readText("/etc/group") ?? "")?.[1] ?? `${gid}`
