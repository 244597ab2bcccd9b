/** Containers and desired groups, made for tests. */
import { Result } from "effect"
import { type Desired, desiredByLabels } from "../../adapters/engine/Desired.ts"
import type { Attachment, Container, Network } from "../../adapters/engine/Engine.ts"
import type { Interfaces } from "../../src/ports/InterfaceAddresses.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"

export const network = (name: string, more: Partial<Network> = {}): Network => ({
  id: `id-of-${name}`,
  name,
  driver: "bridge",
  bridge: `br-${name}`,
  internal: false,
  hostBinding: undefined,
  subnets: [],
  ...more
})

export const attachment = (
  name: string,
  v4: string,
  more: Partial<Network> = {},
  place: Partial<Attachment> = {}
): Attachment => ({
  network: network(name, more),
  gatewayPriority: 0,
  gateways: 1,
  v4: addressUnsafe(v4),
  v6: undefined,
  ...place
})

/** A running container; its id is derived from its name. */
export const container = (name: string, more: Partial<Container> = {}): Container => ({
  id: Buffer.from(name).toString("hex").padEnd(64, "0"),
  name,
  image: "image",
  running: true,
  ended: false,
  createdMillis: 0,
  networkMode: "default",
  labels: new Map(),
  attachments: [attachment("bridge", "172.17.0.2")],
  ...more
})

export const desired = (
  one: Container,
  labels: Readonly<Record<string, string>>,
  others: ReadonlyArray<Container> = [],
  interfaces: Interfaces = new Map()
): Desired =>
  desiredByLabels(one, new Map(Object.entries(labels)), { all: [one, ...others], interfaces, sleeps: false })

/** The address of a result, or its failure. */
export const addressOrFailure = (result: Result.Result<Attachment, string>): string =>
  Result.match(result, { onSuccess: ({ v4 }) => v4?.text ?? "none", onFailure: (failure) => failure })
