/**
 * Which container a mapping belongs to, as an Engine shows it at one time. Pure, and in doubt about everything that
 * one look does not prove.
 */
import type { Attributed, Attribution } from "../../src/mapper/MapperContext.ts"
import type { Mapping } from "../../src/mapper/model/Mapping.ts"
import { type Address, isWithin } from "../../src/protocol/Address.ts"
import { type Attachment, type Container, type Network, shortId } from "./Engine.ts"

/** What an Engine shows. */
export interface View {
  /** The Engine's id; empty if it is unknown. */
  readonly engine: string
  readonly containers: ReadonlyArray<Container>
  readonly networks: ReadonlyArray<Network>
}

/** An address of an interface of this network namespace. */
export interface HostAddress {
  readonly name: string
  readonly address: Address
}

const doubtful: Attribution = { _tag: "Doubtful" }

/**
 * An unknown container is the only one that has the address, on a bridge of this host, if it existed when the mapping
 * was asked for: one that was created later has the address of another that is gone.
 */
export const attribute = (
  view: View,
  { mapping: { backend, container }, askedMillis }: Attributed,
  host: ReadonlyArray<HostAddress>
): Attribution => {
  if (container !== undefined) return fateOf(view, container, backend.address)
  const [only, another] = view.containers.flatMap((each) => {
    const attachment = attachmentAt(each, backend.address)
    return attachment === undefined ? [] : [{ ...each, network: attachment.network }]
  })
  if (view.engine === "" || only === undefined || another !== undefined) return doubtful
  return only.running && only.createdMillis <= askedMillis && isOnBridgeOf(host, only.network)
    ? { _tag: "BelongsTo", container: containerText(view.engine, only.id) }
    : doubtful
}

/** Whether the container that had the address when the Engine said so still has it. */
export const fateOf = (view: View, container: string, address: Address): Attribution => {
  const [engine, id = ""] = container.split(" ")
  if (engine !== view.engine) return doubtful
  const found = view.containers.find((each) => each.id === id)
  const gone = (why: string): Attribution => ({ _tag: "Gone", id, why })
  if (found === undefined) return gone(`container ${shortId(id)} was removed`)
  if (attachmentAt(found, address) !== undefined) return { _tag: "BelongsTo", container }
  const name = `container ${found.name} (${shortId(id)})`
  if (found.ended) return gone(`${name} ended`)
  // An attachment without an address is about to get one.
  const isPlaced =
    found.running && found.attachments.every(({ v4, v6 }) => v4 !== undefined || v6 !== undefined)
  return isPlaced && isAddressOf(view.networks, address) ? gone(`${name} has another address`) : doubtful
}

/** As `Mapping.container` has it. */
const containerText = (engine: string, id: string): string => `${engine} ${id}`

/** The id of the container that a mapping belongs to. */
export const containerIdOf = (mapping: Pick<Mapping, "container"> | undefined): string | undefined =>
  mapping?.container?.split(" ")[1]

export const attachmentAt = ({ attachments }: Container, { key }: Address): Attachment | undefined =>
  attachments.find(({ v4, v6 }) => v4?.key === key || v6?.key === key)

/** Whether the Engine gives out this address. */
export const isAddressOf = (networks: ReadonlyArray<Network>, address: Address): boolean =>
  networks.some((network) => hasSubnetOf(network, address))

/** Another Engine's containers may have the same addresses, in a network namespace of its own. */
const isOnBridgeOf = (host: ReadonlyArray<HostAddress>, network: Network): boolean =>
  network.driver === "bridge" &&
  host.some(({ name, address }) => name === network.bridge && hasSubnetOf(network, address))

const hasSubnetOf = ({ subnets }: Network, { octets }: Address): boolean => isWithin(subnets, octets)
