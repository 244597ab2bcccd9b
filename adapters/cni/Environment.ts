/**
 * The parameters of an execution, `CNI_*` in the environment. We don't use `CNI_PATH`, `CNI_ARGS` and the namespace
 * itself: nothing is delegated, and ports are published on the host's side.
 *
 * Source: https://www.cni.dev/docs/spec/#parameters; the rules for names are those of containernetworking/cni
 * pkg/utils.
 */
import { CniError, codes } from "./CniError.ts"

/** The interface of a container that ports are published for. */
export interface Attachment {
  readonly containerId: string
  readonly ifName: string
}

export type Invocation =
  | { readonly command: "ADD" | "CHECK"; readonly attachment: Attachment; readonly netns: string }
  | { readonly command: "DEL"; readonly attachment: Attachment }
  | { readonly command: "GC" | "STATUS" }
  | { readonly command: "VERSION" }

type Variables = Readonly<Record<string, string | undefined>>

/** Throws a `CniError` that names every missing or invalid variable. */
export const invocationOf = (variables: Variables): Invocation => {
  const command = variables["CNI_COMMAND"] ?? ""
  switch (command) {
    case "ADD":
    case "CHECK":
      return {
        command,
        attachment: attachmentOf(variables, ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"]),
        netns: variables["CNI_NETNS"] ?? ""
      }
    case "DEL":
      return { command, attachment: attachmentOf(variables, ["CNI_CONTAINERID", "CNI_IFNAME"]) }
    case "GC":
    case "STATUS":
    case "VERSION":
      return { command }
    default:
      throw new CniError(
        codes.environment,
        `CNI_COMMAND=${command}: must be ADD, DEL, CHECK, GC, STATUS or VERSION`
      )
  }
}

/** The owner of an attachment's ports; a digest if the name would be too long for an owner, or not printable. */
export const ownerOf = ({ containerId, ifName }: Attachment): string => {
  const owner = `cni:${containerId}/${ifName}`
  return /^[\x21-\x7e]{1,128}$/.test(owner) ? owner : `cni:${containerId.slice(0, 40)}~${digest(owner)}`
}

const attachmentOf = (variables: Variables, required: ReadonlyArray<string>): Attachment => {
  const missing = required.filter((name) => !variables[name])
  if (missing.length > 0)
    throw new CniError(codes.environment, `required env variables [${missing.join(",")}] missing`)
  const containerId = variables["CNI_CONTAINERID"] ?? ""
  const ifName = variables["CNI_IFNAME"] ?? ""
  const wrong: Array<string> = []
  if (!isName(containerId))
    wrong.push(`CNI_CONTAINERID=${containerId}: must be alphanumeric, with _ . - after the first character`)
  if (!isInterface(ifName))
    wrong.push(
      `CNI_IFNAME=${ifName}: must be the name of an interface, at most 15 bytes without / : or space`
    )
  if (wrong.length > 0) throw new CniError(codes.environment, wrong.join("; "))
  return { containerId, ifName }
}

/** The rule for container ids and for the names of networks. */
export const isName = (text: string): boolean => /^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/.test(text)

const isInterface = (text: string): boolean =>
  Buffer.byteLength(text) <= 15 && text !== "." && text !== ".." && !/[/:\s]/.test(text)

const digest = (text: string): string =>
  process.getBuiltinModule("node:crypto").createHash("sha256").update(text).digest("hex").slice(0, 32)
