/**
 * `POST /Cni.Execute`: the running plugin does one execution. The body is the configuration from stdin, the
 * parameters are headers; `front.sh` or `forward.ts` sends it.
 */
import { Effect } from "effect"
import type { Handler, Posted, Reply } from "../docker/Routes.ts"
import { type Outcome, outcomeType } from "./Execution.ts"
import { execute } from "./execute.ts"
import { socketNamed } from "./NetworkConfig.ts"

export { executePath } from "./Execution.ts"

/**
 * 200 with the result, which may be empty, or 500 with the error, each to be printed unchanged on stdout. 421 if the
 * configuration names another socket than the header `Portmapper-Socket`, through which it came: nothing was done.
 */
export const executeHandler: Handler = (posted) =>
  socketNamed(posted.body) === (headerText(posted, "portmapper-socket") ?? "")
    ? Effect.map(execute({ variables: variablesIn(posted), input: () => posted.body }), replyOf)
    : Effect.succeed(misdirected)

/** The variables that an execution reads. */
const variablesIn = (posted: Posted) => ({
  CNI_COMMAND: headerText(posted, "cni-command"),
  CNI_CONTAINERID: headerText(posted, "cni-containerid"),
  CNI_NETNS: headerText(posted, "cni-netns"),
  CNI_IFNAME: headerText(posted, "cni-ifname")
})

/** A shell sends the bytes of its variables, which are UTF-8, as in the environment. */
const headerText = ({ header }: Posted, name: string): string | undefined => {
  const bytes = header(name)
  return bytes === undefined ? undefined : Buffer.from(bytes, "latin1").toString()
}

const replyOf = ({ status, stdout }: Outcome): Reply => ({
  status: status === 0 ? 200 : 500,
  contentType: outcomeType,
  body: stdout
})

const misdirected: Reply = {
  status: 421,
  contentType: "application/json",
  body: `${JSON.stringify({ Err: "the configuration names another socket than this one" })}\n`
}
