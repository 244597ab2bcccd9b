/**
 * The nf_tables messages that change and read our table (include/uapi/linux/netfilter/nf_tables.h). `NftDefinition`
 * handles sets, chains and rules.
 */
import { Result } from "effect"
import type { Errno } from "../Libc.ts"
import { ENOENT } from "../Libc.ts"
import type { Batch, Netlink } from "../netlink/Netlink.ts"
import {
  eachAttribute,
  findAttribute,
  findNested,
  type MessageWriter,
  NLM_F_CREATE,
  netfilterHeaderLength
} from "../netlink/NetlinkMessage.ts"
import type { CountedElement } from "./RuleElements.ts"
import type { Element, TableSet } from "./TableSets.ts"

export const NFNL_SUBSYS_NFTABLES = 10
export const NFPROTO_INET = 1

const NFT_MSG_NEWTABLE = 0
const NFT_MSG_GETTABLE = 1
const NFT_MSG_DELTABLE = 2
const NFT_MSG_GETRULE = 7
export const NFT_MSG_NEWSETELEM = 12
const NFT_MSG_GETSETELEM = 13
export const NFT_MSG_DELSETELEM = 14
const NFT_MSG_GETGEN = 16

const NFTA_TABLE_NAME = 1
const NFTA_TABLE_FLAGS = 2
const NFTA_TABLE_USERDATA = 6
const NFTA_TABLE_OWNER = 7
const NFTA_RULE_TABLE = 1
const NFTA_GEN_ID = 1
const NFTA_SET_ELEM_LIST_TABLE = 1
const NFTA_SET_ELEM_LIST_SET = 2
const NFTA_SET_ELEM_LIST_ELEMENTS = 3
const NFTA_LIST_ELEM = 1
const NFTA_SET_ELEM_KEY = 1
const NFTA_SET_ELEM_DATA = 2
const NFTA_SET_ELEM_EXPR = 7
const NFTA_SET_ELEM_KEY_END = 10
const NFTA_SET_ELEM_EXPRESSIONS = 11
const NFTA_DATA_VALUE = 1
const NFTA_EXPR_NAME = 1
const NFTA_EXPR_DATA = 2
const NFTA_COUNTER_PACKETS = 2
const NFTA_LIMIT_RATE = 1
const NFTA_LIMIT_UNIT = 2
const NFTA_LIMIT_BURST = 3
const NFTA_LIMIT_FLAGS = 5
/** It matches what exceeds the rate. */
const NFT_LIMIT_F_INV = 1

/** The length of a nested attribute is 16 bits wide; end a list of elements well before that. */
const longestList = 60_000

/** First deletes elements, then adds elements. */
export const writeElements = (
  batch: Batch,
  table: string,
  removed: ReadonlyArray<Element>,
  added: ReadonlyArray<Element>
): void => {
  writeLists(batch, NFT_MSG_DELSETELEM, 0, table, removed)
  writeLists(batch, NFT_MSG_NEWSETELEM, NLM_F_CREATE, table, added)
}

const writeLists = (
  batch: Batch,
  type: number,
  flags: number,
  table: string,
  elements: ReadonlyArray<Element>
) => {
  if (elements.length === 0) return
  const { writer } = batch
  for (const [set, members] of Map.groupBy(elements, (element) => element.set)) {
    for (let next = 0; next < members.length; ) {
      batch.begin(type, flags, NFPROTO_INET)
      writer.string(NFTA_SET_ELEM_LIST_TABLE, table)
      writer.string(NFTA_SET_ELEM_LIST_SET, set.name)
      const list = writer.beginNested(NFTA_SET_ELEM_LIST_ELEMENTS)
      for (; next < members.length && writer.length - list < longestList; next++) {
        const element = members[next]
        if (element !== undefined) writeElement(writer, element, type === NFT_MSG_NEWSETELEM)
      }
      writer.endNested(list)
      writer.end()
    }
  }
}

const writeElement = (writer: MessageWriter, { key, last, data, rate }: Element, withData: boolean) => {
  const element = writer.beginNested(NFTA_LIST_ELEM)
  writeValue(writer, NFTA_SET_ELEM_KEY, key)
  if (last !== undefined) writeValue(writer, NFTA_SET_ELEM_KEY_END, last)
  if (withData && data !== undefined) writeValue(writer, NFTA_SET_ELEM_DATA, data)
  if (withData && rate !== undefined) writeRate(writer, rate)
  writer.endNested(element)
}

/** A limit of the element's own in place of the one that its set declares. */
const writeRate = (writer: MessageWriter, rate: number) => {
  const limit = writer.beginNested(NFTA_SET_ELEM_EXPR)
  writer.string(NFTA_EXPR_NAME, "limit")
  const data = writer.beginNested(NFTA_EXPR_DATA)
  writer.uint64(NFTA_LIMIT_RATE, rate)
  writer.uint64(NFTA_LIMIT_UNIT, 1)
  writer.uint32(NFTA_LIMIT_BURST, rate)
  writer.uint32(NFTA_LIMIT_FLAGS, NFT_LIMIT_F_INV)
  writer.endNested(data)
  writer.endNested(limit)
}

const writeValue = (writer: MessageWriter, type: number, value: Uint8Array) => {
  const nested = writer.beginNested(type)
  writer.attribute(NFTA_DATA_VALUE, value)
  writer.endNested(nested)
}

export const NFT_TABLE_F_DORMANT = 1
/** The socket owns the table and alone can change it, from Linux 5.12 on. */
export const NFT_TABLE_F_OWNER = 2
/** An owned table survives its owner's socket, as an orphan that another socket may adopt, from Linux 6.9 on. */
export const NFT_TABLE_F_PERSIST = 4

export interface TableHead {
  readonly name: string
  /** Without flags, an existing table stays as it is. */
  readonly flags?: number
  /** The kernel stores it when it creates the table. */
  readonly comment?: string
}

export const writeTable = ({ writer, begin }: Batch, { name, flags, comment }: TableHead): void => {
  begin(NFT_MSG_NEWTABLE, NLM_F_CREATE, NFPROTO_INET)
  writer.string(NFTA_TABLE_NAME, name)
  if (flags !== undefined) writer.uint32(NFTA_TABLE_FLAGS, flags)
  if (comment !== undefined) writer.attribute(NFTA_TABLE_USERDATA, userdataOf(comment))
  writer.end()
}

export const writeDeleteTable = ({ writer, begin }: Batch, table: string): void => {
  begin(NFT_MSG_DELTABLE, 0, NFPROTO_INET)
  writer.string(NFTA_TABLE_NAME, table)
  writer.end()
}

/** Every transaction of any process makes a new generation. */
export const readGeneration = (netlink: Netlink): Result.Result<number, Errno> =>
  Result.map(
    netlink.get({
      subsystem: NFNL_SUBSYS_NFTABLES,
      type: NFT_MSG_GETGEN,
      family: 0,
      write: () => {}
    }),
    ({ body }) => uint(findAttribute(body, netfilterHeaderLength, NFTA_GEN_ID))
  )

export interface TableRead {
  readonly comment: string
  /** The port id of the netlink socket that owns the table; `undefined` if the table has no owner. */
  readonly owner: number | undefined
}

/** `undefined` if there is no such table. */
export const readTable = (netlink: Netlink, name: string): Result.Result<TableRead | undefined, Errno> => {
  const table = netlink.get({
    subsystem: NFNL_SUBSYS_NFTABLES,
    type: NFT_MSG_GETTABLE,
    family: NFPROTO_INET,
    write: (writer) => writer.string(NFTA_TABLE_NAME, name)
  })
  if (Result.isFailure(table))
    return table.failure.errno === ENOENT ? Result.succeed(undefined) : Result.fail(table.failure)
  const attribute = (type: number) => findAttribute(table.success.body, netfilterHeaderLength, type)
  const owner = attribute(NFTA_TABLE_OWNER)
  return Result.succeed({
    comment: commentOf(attribute(NFTA_TABLE_USERDATA)),
    owner: owner === undefined ? undefined : uint(owner)
  })
}

/** The number of the rules of a table. */
export const countRules = (netlink: Netlink, table: string): Result.Result<number, Errno> =>
  Result.map(
    netlink.dump({
      subsystem: NFNL_SUBSYS_NFTABLES,
      type: NFT_MSG_GETRULE,
      family: NFPROTO_INET,
      write: (writer) => writer.string(NFTA_RULE_TABLE, table)
    }),
    (rules) => rules.length
  )

/** Userdata as `nft` writes and reads it: type (0 is the comment), length, and text that ends in a zero byte. */
const userdataOf = (comment: string): Uint8Array => {
  const text = new TextEncoder().encode(`${comment}\0`)
  return Uint8Array.of(0, text.length, ...text)
}

const commentOf = (userdata: Uint8Array | undefined): string =>
  userdata === undefined || userdata[0] !== 0
    ? ""
    : new TextDecoder().decode(userdata.subarray(2, 1 + (userdata[1] ?? 0)))

/** The elements of a set, with their counters. */
export const readElements = (
  netlink: Netlink,
  table: string,
  set: TableSet
): Result.Result<ReadonlyArray<CountedElement>, Errno> =>
  Result.map(
    netlink.dump({
      subsystem: NFNL_SUBSYS_NFTABLES,
      type: NFT_MSG_GETSETELEM,
      family: NFPROTO_INET,
      write: (writer) => {
        writer.string(NFTA_SET_ELEM_LIST_TABLE, table)
        writer.string(NFTA_SET_ELEM_LIST_SET, set.name)
      }
    }),
    (messages) => {
      const elements: Array<CountedElement> = []
      for (const { body } of messages) {
        const list = findAttribute(body, netfilterHeaderLength, NFTA_SET_ELEM_LIST_ELEMENTS)
        if (list !== undefined) eachAttribute(list, 0, (_, element) => elements.push(elementOf(set, element)))
      }
      return elements
    }
  )

const elementOf = (set: TableSet, attributes: Uint8Array): CountedElement => {
  let key: Uint8Array = new Uint8Array()
  let last: Uint8Array | undefined
  let data: Uint8Array | undefined
  let expression: Uint8Array | undefined
  eachAttribute(attributes, 0, (type, payload) => {
    if (type === NFTA_SET_ELEM_KEY) key = findAttribute(payload, 0, NFTA_DATA_VALUE) ?? key
    if (type === NFTA_SET_ELEM_KEY_END) last = findAttribute(payload, 0, NFTA_DATA_VALUE)
    if (type === NFTA_SET_ELEM_DATA) data = findAttribute(payload, 0, NFTA_DATA_VALUE)
    if (type === NFTA_SET_ELEM_EXPR) expression = findAttribute(payload, 0, NFTA_EXPR_DATA)
    if (type === NFTA_SET_ELEM_EXPRESSIONS) expression = findNested(payload, NFTA_LIST_ELEM, NFTA_EXPR_DATA)
  })
  const range = set.kind === "allowed" ? (last ?? key) : undefined
  if (set.kind === "rate") return { set, key, last: range, data, rate: rateOf(expression), packets: 0 }
  const counter = expression && findAttribute(expression, 0, NFTA_COUNTER_PACKETS)
  return { set, key, last: range, data, packets: uint(counter) }
}

/** 0 if it is not one that `writeRate` writes. */
const rateOf = (limit: Uint8Array | undefined): number => {
  const number = (type: number) => uint(limit && findAttribute(limit, 0, type))
  const rate = number(NFTA_LIMIT_RATE)
  const isOurs =
    number(NFTA_LIMIT_UNIT) === 1 &&
    number(NFTA_LIMIT_BURST) === rate &&
    number(NFTA_LIMIT_FLAGS) === NFT_LIMIT_F_INV
  return isOurs ? rate : 0
}

/** An unsigned number in network order, of four or eight bytes. */
const uint = (bytes: Uint8Array = new Uint8Array()): number =>
  bytes.reduce((value, byte) => value * 256 + byte, 0)
