/** The label `portmapper.interface`: publishes every `-p` of its container at the addresses of an interface. */
import { Result } from "effect"
import type { Labels } from "./PortBinding.ts"
import {
  atInterface,
  interfaceNameRule,
  isInterfaceName,
  type Publish,
  parsePublish
} from "./PublishSyntax.ts"
import { labelIssue, RequestError } from "./RequestError.ts"

export const interfaceLabel = "portmapper.interface"

export interface Labelled {
  readonly interfaceName: string | undefined
  /** The other labels. */
  readonly others: Labels
}

export const interfaceIn = (labels: Labels): Result.Result<Labelled, RequestError> => {
  const interfaceName = labels.get(interfaceLabel)
  if (interfaceName === undefined) return Result.succeed({ interfaceName, others: labels })
  if (isInterfaceName(interfaceName))
    return Result.succeed({
      interfaceName,
      others: new Map([...labels].filter(([name]) => name !== interfaceLabel))
    })
  const rule = `${interfaceNameRule}, and not one of localhost (whose interface is lo), all and default`
  return Result.fail(new RequestError({ issues: [labelIssue(interfaceLabel, interfaceName, rule)] }))
}

/** Parses a `-p` beside this label. */
export const parseLabelled = (
  text: string,
  interfaceName: string | undefined
): Result.Result<Publish, string> => {
  const parsed = parsePublish(text)
  return interfaceName === undefined
    ? parsed
    : Result.flatMap(parsed, (publish) => atInterface(publish, interfaceName))
}
