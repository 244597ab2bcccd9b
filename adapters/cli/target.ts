/** A backend as users name it: by its address, or by the name or id of its container. */
import { Result } from "effect"
import { type Address, parseAddress } from "../../src/protocol/Address.ts"
import type { ListedMapping } from "../../src/protocol/Driver.ts"

export const targetForm = "ADDRESS|CONTAINER"

export type Target =
  | { readonly _tag: "Address"; readonly address: Address }
  | { readonly _tag: "Container"; readonly container: string }

/** A text that is no address is a container, if Docker would accept the name and it isn't numbers with dots between. */
export function parseTarget(text: string): Result.Result<Target, string> {
  const address = parseAddress(text)
  if (Result.isSuccess(address)) return Result.succeed({ _tag: "Address", address: address.success })
  if (/^\d+(\.\d+)+$/.test(text)) return Result.fail(address.failure)
  return /^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/.test(text)
    ? Result.succeed({ _tag: "Container", container: text })
    : Result.fail("expected an IPv4 or IPv6 address, or the name or id of a container")
}

export const targetText = (target: Target): string =>
  target._tag === "Address" ? target.address.text : target.container

/**
 * Whether the mapping leads there: a container is named by its name, or by at least 12 digits of its id. What `watch`
 * could not publish is listed with the name alone.
 */
export const leadsTo = ({ backendIp, container = "" }: ListedMapping, target: Target): boolean => {
  if (target._tag === "Address")
    return Result.getOrUndefined(parseAddress(backendIp))?.key === target.address.key
  const id = container.slice(container.indexOf("/") + 1)
  const asId = /^[0-9a-f]{12,64}$/.test(target.container) ? target.container.slice(0, 12) : target.container
  return container === `${target.container}/${id}` || (id !== "" && id === asId)
}
