/**
 * What a table consists of besides its elements, as messages. `nft` compiles it from text into a draft, a dormant
 * table beside ours; our own socket reads the draft back and writes it into the table: `nft` can't write into a
 * table that another socket owns, and before version 1.1 it can't create one that outlives its owner.
 */
import { Effect, Result } from "effect"
import type { FirewallError } from "../../../src/firewall/Firewall.ts"
import type { Errno } from "../Libc.ts"
import type { Batch, Netlink } from "../netlink/Netlink.ts"
import {
  eachAttribute,
  findAttribute,
  NLM_F_APPEND,
  NLM_F_CREATE,
  netfilterHeaderLength
} from "../netlink/NetlinkMessage.ts"
import { loadByNft } from "./NftCommand.ts"
import { NFNL_SUBSYS_NFTABLES, NFPROTO_INET, writeDeleteTable } from "./NftMessages.ts"
import { servicesComment, type Table } from "./Ruleset.ts"

/**
 * How a kind of object is read and written, and which attributes define it: attribute 1 of all is the table's name.
 */
interface Kind {
  readonly get: number
  readonly create: number
  readonly flags: number
  readonly attributes: ReadonlyArray<number>
}

const NFTA_TABLE = 1
const NFTA_SET_NAME = 2
const NFTA_SET_ID = 10
const NFTA_RULE_USERDATA = 7

/** Ordered so that an object comes after those it refers to. */
const kinds: ReadonlyArray<Kind> = [
  // NAME, FLAGS, KEY_TYPE, KEY_LEN, DATA_TYPE, DATA_LEN, POLICY, DESC, TIMEOUT, GC_INTERVAL, USERDATA, EXPR, EXPRESSIONS
  {
    get: 10,
    create: 9,
    flags: NLM_F_CREATE,
    attributes: [NFTA_SET_NAME, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 17, 18]
  },
  // NAME, HOOK, POLICY, TYPE, USERDATA
  { get: 4, create: 3, flags: NLM_F_CREATE, attributes: [3, 4, 5, 7, 12] },
  // CHAIN, EXPRESSIONS, USERDATA
  { get: 7, create: 6, flags: NLM_F_CREATE | NLM_F_APPEND, attributes: [2, 4, 7] }
]
const [sets, , rules] = kinds

export interface Definition {
  readonly objects: ReadonlyArray<{ readonly kind: Kind; readonly attributes: Uint8Array }>
}

/** Adds the sets, chains and rules to a table that has none; the rules for services only if they are wanted. */
export const writeDefinition = (
  batch: Batch,
  table: string,
  { objects }: Definition,
  withServices: boolean
): void => write(batch, table, withServices ? objects : objects.filter((one) => !isOfServices(one)))

/** Adds the rules for services to a table that has the others. */
export const writeServices = (batch: Batch, table: string, { objects }: Definition): void =>
  write(batch, table, objects.filter(isOfServices))

const isOfServices = ({ kind, attributes }: Definition["objects"][number]): boolean =>
  kind === rules && textOf(findAttribute(attributes, 0, NFTA_RULE_USERDATA)).includes(servicesComment)

const write = ({ writer, begin }: Batch, table: string, objects: Definition["objects"]): void => {
  for (const [index, { kind, attributes }] of objects.entries()) {
    begin(kind.create, kind.flags, NFPROTO_INET)
    writer.string(NFTA_TABLE, table)
    if (kind === sets) writer.uint32(NFTA_SET_ID, index + 1)
    writer.append(attributes)
    writer.end()
  }
}

export const draftOf = (table: string): string => `${table}-draft`

/** Only one process at a time may call this: all use the same name for the draft. */
export const compile = Effect.fnUntraced(function* (
  nft: string,
  netlink: Netlink,
  table: Table,
  failedBy: (errno: Errno) => FirewallError
) {
  const draft = draftOf(table.name)
  yield* loadByNft(nft, `compiling nftables table inet ${table.name}`, table.text(draft, "dormant"))
  const read = readDefinition(netlink, draft)
  netlink.batch(NFNL_SUBSYS_NFTABLES, (batch) => writeDeleteTable(batch, draft))
  return yield* Effect.mapError(Effect.fromResult(read), failedBy)
}, Effect.uninterruptible)

const readDefinition = (netlink: Netlink, table: string): Result.Result<Definition, Errno> => {
  const objects: Array<Definition["objects"][number]> = []
  for (const kind of kinds) {
    const dumped = netlink.dump({
      subsystem: NFNL_SUBSYS_NFTABLES,
      type: kind.get,
      family: NFPROTO_INET,
      write: (writer) => writer.string(NFTA_TABLE, table)
    })
    if (Result.isFailure(dumped)) return Result.fail(dumped.failure)
    for (const { body } of dumped.success) {
      if (textOf(findAttribute(body, netfilterHeaderLength, NFTA_TABLE)) !== table) continue
      const attributes = selected(body, kind.attributes)
      const name = kind === sets ? textOf(findAttribute(attributes, 0, NFTA_SET_NAME)) : ""
      if (name.startsWith("__"))
        throw new Error(`a rule of ${table} has an anonymous set, which can't be copied`)
      objects.push({ kind, attributes })
    }
  }
  return Result.succeed({ objects })
}

/** The attributes of these types, with their headers. */
const selected = (body: Uint8Array, types: ReadonlyArray<number>): Uint8Array => {
  const parts: Array<Uint8Array> = []
  eachAttribute(body, netfilterHeaderLength, (type, payload) => {
    if (!types.includes(type)) return
    const start = payload.byteOffset - body.byteOffset - 4
    parts.push(body.subarray(start, (start + 4 + payload.length + 3) & ~3))
  })
  return Buffer.concat(parts)
}

const textOf = (bytes: Uint8Array = new Uint8Array()): string =>
  Buffer.from(bytes).toString().replace(/\0$/, "")
