/**
 * An execution that the running plugin is handed over whole, so that no process has to be started that could do it: the
 * configuration as it came on stdin, and the parameters as headers (`front.sh` sends them). What is executed is the
 * executable's own code; what it calls are this process's operations, and their answers are delivered with the reply.
 */
import { type Context, Effect, Exit, type Scope } from "effect"
import { CurrentOwner, type Driver } from "../../src/protocol/Driver.ts"
import { call, failureOf, valueBody } from "../../src/protocol/Operations.ts"
import type { Handler, Posted, Reply } from "../docker/Routes.ts"
import { type Caller, refusal, type WithCaller } from "./Caller.ts"
import { execute, type Outcome } from "./execute.ts"
import { socketNamed } from "./NetworkConfig.ts"

export const executePath = "/Cni.Execute"

/** By this type the reply of an execution is told from whatever else answers on a socket. */
const outcomeType = "application/vnd.portmapper.cni+json"

/**
 * 200 with the result, which may be empty, or 500 with the error, each as it is to stand on stdout. 421 where the
 * configuration names another socket than the one that it came through, by the header `Portmapper-Socket`: nothing was done.
 */
export const executeHandler: Handler = (posted) =>
  socketNamed(posted.body) === (headerText(posted, "portmapper-socket") ?? "")
    ? Effect.flatMap(Effect.context<Driver | Scope.Scope>(), (services) =>
        Effect.map(outcomeOf(posted, services), replyOf)
      )
    : Effect.succeed(misdirected)

const outcomeOf = (posted: Posted, services: Context.Context<Driver | Scope.Scope>): Effect.Effect<Outcome> =>
  Effect.callback((resume, signal) => {
    const withCaller: WithCaller = async (_config, _when, work) => {
      await work(callerIn(services, signal))
      return undefined
    }
    const executed = execute({ variables: variablesIn(posted), input: () => posted.body }, withCaller).then(
      (outcome) => resume(Effect.succeed(outcome))
    )
    // Where the client has gone, nothing goes on once the scope is closed: it may have begun anew.
    return Effect.promise(() => executed)
  })

const callerIn = (services: Context.Context<Driver | Scope.Scope>, signal: AbortSignal): Caller => ({
  call: async (method, request, owner) => {
    const answered = Effect.provideService(
      call(`PortMapper.${method}`, valueBody(request)),
      CurrentOwner,
      owner
    )
    const exit = await Effect.runPromiseExitWith(services)(answered, { signal })
    if (Exit.isSuccess(exit)) return exit.value
    const { kind, message } = failureOf(exit.cause)
    throw refusal(kind, message)
  },
  close: async () => {}
})

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
