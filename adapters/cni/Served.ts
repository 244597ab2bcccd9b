/**
 * `POST /Cni.Execute`: one execution, done by the running plugin. The body is the configuration as it came on stdin, the
 * parameters are headers; `front.sh` sends it, or `forward.ts`.
 */
import { Effect } from "effect"
import type { Handler, Posted, Reply } from "../docker/Routes.ts"
import { type Outcome, outcomeType } from "./Execution.ts"
import { execute } from "./execute.ts"
import { socketNamed } from "./NetworkConfig.ts"

export { executePath } from "./Execution.ts"

/**
 * 200 with the result, which may be empty, or 500 with the error, each as it is to stand on stdout. 421 where the
 * configuration names another socket than the one that it came through, by the header `Portmapper-Socket`: nothing was done.
 */
export const executeHandler: Handler = (posted) =>
  socketNamed(posted.body) === (headerText(posted, "portmapper-socket") ?? "")
    ? Effect.map(execute({ variables: variablesIn(posted), input: () => posted.body }), replyOf)
    : Effect.succeed(misdirected)

/** Those that an execution looks at. */
const variablesIn = (posted: Posted) => ({
  CNI_COMMAND: headerText(posted, "cni-command"),
  CNI_CONTAINERID: headerText(posted, "cni-containerid"),
  CNI_NETNS: headerText(posted, "cni-netns"),
  CNI_IFNAME: headerText(posted, "cni-ifname")
})

/** What a shell has in its variables are bytes, which are UTF-8 as in an environment. */
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
