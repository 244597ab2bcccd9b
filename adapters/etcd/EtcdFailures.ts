/** What a failed request to etcd means. Pure. Source: etcd 3.4 etcdserver/api/v3rpc/rpctypes/error.go. */
import { ClusterError, type ClusterErrorReason } from "../../src/cluster/Etcd.ts"
import { type HttpAnswer, HttpCode, type HttpError } from "../node/HttpClient.ts"
import { jsonOf } from "../node/jsonOf.ts"
import { tlsProblem } from "../node/tlsProblem.ts"
import { decodeFailure } from "./EtcdMessages.ts"

/** etcd said no, which means something to the method or to the login. `message` has etcd's words. */
export interface EtcdAnswer {
  readonly _tag: "EtcdAnswer"
  readonly endpoint: string
  readonly code: number
  readonly message: string
}

/** gRPC's codes. */
const Code = {
  unknown: 2,
  invalidArgument: 3,
  deadlineExceeded: 4,
  notFound: 5,
  permissionDenied: 7,
  resourceExhausted: 8,
  failedPrecondition: 9,
  outOfRange: 11,
  internal: 13,
  unavailable: 14,
  unauthenticated: 16
} as const

/** What was asked, and whom. `writes`: without an answer it may have been done. */
export interface Asked {
  readonly endpoint: string
  readonly writes: boolean
}

/** Any other gateway of gRPC has the code for a path that it does not know. */
export const isLeaseUnknown = ({ code, message }: EtcdAnswer): boolean =>
  code === Code.notFound && message.includes("lease not found")

/** That revision was compacted, or is still to come. */
export const isRevisionUnknown = ({ code }: EtcdAnswer): boolean => code === Code.outOfRange

/** Another login helps: the token has expired, or its member was restarted, or rights have changed. */
export const isTokenUnknown = ({ code, message }: EtcdAnswer): boolean =>
  code === Code.unauthenticated || message.includes("revision of auth store is old")

export const errorAt = (
  { endpoint, writes }: Asked,
  reason: ClusterErrorReason,
  detail: string
): ClusterError =>
  new ClusterError({ reason, endpoint, detail, mayBeDone: reason === "Unreachable" && writes })

/** What etcd said no to, where that means nothing more to its caller. */
export const refused = ({ endpoint, message }: EtcdAnswer): ClusterError =>
  errorAt({ endpoint, writes: false }, "Refused", message)

const etcd = { server: "etcd", authority: "--cluster-ca", certificate: "--cluster-cert and --cluster-key" }

/** No answer came. */
export const withoutAnswer = (asked: Asked, { code, message, connected }: HttpError): ClusterError => {
  const at = { ...asked, writes: asked.writes && connected }
  const known: Readonly<Record<string, string>> = {
    [HttpCode.answerTimeout]: `no answer: ${message}`,
    ECONNREFUSED: "no process is listening there",
    ECONNRESET: "the connection broke",
    EPIPE: "the connection broke"
  }
  return errorAt(at, "Unreachable", tlsProblem(code, message, etcd) ?? known[code] ?? message)
}

export const refusal = (
  asked: Asked,
  { status, body }: Pick<HttpAnswer, "status" | "body">
): ClusterError | EtcdAnswer => {
  const failed = decodeFailure(jsonOf(body))
  if (failed === undefined)
    return errorAt(asked, "Refused", `status ${status}: what is there is no etcd v3 with a JSON gateway`)
  return failure(asked, failed.code, failed.message)
}

export const failure = (asked: Asked, code: number, message: string): ClusterError | EtcdAnswer => {
  const words = message.replace(/^etcdserver: /, "")
  switch (code) {
    case Code.notFound:
    case Code.outOfRange:
    case Code.unauthenticated:
      return { _tag: "EtcdAnswer", endpoint: asked.endpoint, code, message }
    case Code.permissionDenied:
      return errorAt(asked, "Denied", `${words}: the user's role lacks the cluster's prefix`)
    case Code.resourceExhausted:
      return errorAt(asked, /space/.test(words) ? "Full" : "Unreachable", words)
    case Code.invalidArgument:
      if (words.includes("revision of auth store is old"))
        return { _tag: "EtcdAnswer", endpoint: asked.endpoint, code, message }
      if (words.includes("user name is empty"))
        return errorAt(asked, "Denied", "it wants a user, and none is given")
      return errorAt(asked, /authentication|password|user/.test(words) ? "Denied" : "Refused", words)
    case Code.failedPrecondition:
      return errorAt(asked, /auth/.test(words) ? "Denied" : "Refused", words)
    case Code.unavailable:
    case Code.deadlineExceeded:
    case Code.unknown:
    case Code.internal:
      return errorAt(asked, "Unreachable", words)
    default:
      return errorAt(asked, "Refused", words)
  }
}
