/**
 * Bodies of etcd's JSON gateway and their meaning. Keys and values are base64, 64-bit integers are decimals in strings, and
 * what is zero or empty is left out.
 *
 * Source: etcd 3.4 api/etcdserverpb/rpc.proto; https://etcd.io/docs/v3.4/dev-guide/api_grpc_gateway.
 */
import { Duration, Option, Result, Schema } from "effect"
import type {
  Compare,
  Entry,
  LeaseId,
  LeaseState,
  Operation,
  Page,
  Transaction,
  TransactionResult,
  WatchChange
} from "../../src/cluster/Etcd.ts"

const text = Schema.optionalKey(Schema.String)

const Header = Schema.Struct({ revision: text })

const KeyValue = Schema.Struct({
  key: Schema.String,
  value: text,
  create_revision: text,
  mod_revision: text,
  lease: text
})

const Range = Schema.Struct({
  header: Schema.optionalKey(Header),
  kvs: Schema.optionalKey(Schema.Array(KeyValue)),
  more: Schema.optionalKey(Schema.Boolean)
})

const Transacted = Schema.Struct({
  header: Header,
  succeeded: Schema.optionalKey(Schema.Boolean),
  responses: Schema.optionalKey(
    Schema.Array(Schema.Struct({ response_range: Schema.optionalKey(Schema.NullOr(Range)) }))
  )
})

const Lease = Schema.Struct({ ID: Schema.String, TTL: text })

const Watched = Schema.Struct({
  result: Schema.Struct({
    header: Schema.optionalKey(Header),
    created: Schema.optionalKey(Schema.Boolean),
    canceled: Schema.optionalKey(Schema.Boolean),
    cancel_reason: text,
    compact_revision: text,
    fragment: Schema.optionalKey(Schema.Boolean),
    events: Schema.optionalKey(Schema.Array(Schema.Struct({ type: text, kv: KeyValue })))
  })
})

const Failed = Schema.Struct({ code: Schema.Number, message: Schema.String })

const WatchFailed = Schema.Struct({
  error: Schema.Struct({
    grpc_code: Schema.optionalKey(Schema.Number),
    /** In its place since version 3.6. */
    code: Schema.optionalKey(Schema.Number),
    message: Schema.String
  })
})

/** The failure says what is wrong with the answer. */
export type Decoder<A> = (value: unknown) => Result.Result<A, string>

export interface EtcdRequest<A> {
  readonly path: string
  readonly body: object
  readonly decode: Decoder<A>
  /** It may change something: where no answer comes, it may have done so. */
  readonly writes?: boolean
  /** Its answer is long, and may take longer. */
  readonly isLong?: boolean
}

const decoder = <T, A>(schema: Schema.ConstraintDecoder<T>, meaning: (message: T) => A): Decoder<A> => {
  const decode = Schema.decodeUnknownResult(schema)
  return (value) => Result.mapBoth(decode(value), { onSuccess: meaning, onFailure: (error) => error.message })
}

const base64 = (plain: string): string => Buffer.from(plain).toString("base64")
const plain = (encoded: string | undefined): string => Buffer.from(encoded ?? "", "base64").toString()

/** Revisions stay far below 2^53. */
const revision = (digits: string | undefined): number => Number(digits ?? "0")

const entry = (kv: typeof KeyValue.Type): Entry => ({
  key: plain(kv.key),
  value: plain(kv.value),
  createRevision: revision(kv.create_revision),
  revision: revision(kv.mod_revision),
  lease: kv.lease === undefined || kv.lease === "0" ? undefined : kv.lease
})

/** The first key after all those with the prefix, which ends in an ASCII character. */
const endOf = (prefix: string): string =>
  prefix.slice(0, -1) + String.fromCharCode(prefix.charCodeAt(prefix.length - 1) + 1)

const within = (prefix: string) => ({ key: base64(prefix), range_end: base64(endOf(prefix)) })

const comparison = (compare: Compare): object => {
  const key = base64(compare.key)
  switch (compare._tag) {
    case "Revision":
      return { key, target: "MOD", result: "EQUAL", mod_revision: String(compare.is) }
    case "CreateRevision":
      return { key, target: "CREATE", result: "EQUAL", create_revision: String(compare.is) }
    case "CreatedAfter":
      return { key, target: "CREATE", result: "GREATER", create_revision: String(compare.revision) }
    case "Lease":
      return { key, target: "LEASE", result: "EQUAL", lease: compare.is }
  }
}

const operation = (each: Operation): object => {
  switch (each._tag) {
    case "Put": {
      const value = each.value === undefined ? { ignore_value: true } : { value: base64(each.value) }
      return { request_put: { key: base64(each.key), ...value, lease: each.lease ?? "0" } }
    }
    case "Delete":
      return { request_delete_range: { key: base64(each.key) } }
    case "Read":
      return { request_range: within(each.prefix) }
    case "Transaction":
      return { request_txn: transactionBody(each.transaction) }
  }
}

export const transactPath = "/v3/kv/txn"

export const transactionBody = ({ compare, success, failure = [] }: Transaction): object => ({
  compare: compare.map(comparison),
  success: success.map(operation),
  failure: failure.map(operation)
})

export const decodeTransaction: Decoder<TransactionResult> = decoder(
  Transacted,
  ({ header, succeeded = false, responses = [] }) => ({
    succeeded,
    revision: revision(header.revision),
    reads: responses.flatMap(({ response_range }) =>
      response_range == null ? [] : [(response_range.kvs ?? []).map(entry)]
    )
  })
)

export interface PageOf {
  readonly limit: number
  readonly after?: string | undefined
  readonly revision?: number | undefined
}

export const pageBody = (prefix: string, { limit, after, revision: at }: PageOf): object => ({
  ...within(prefix),
  ...(after === undefined ? {} : { key: base64(`${after}\0`) }),
  limit: String(limit),
  ...(at === undefined ? {} : { revision: String(at) })
})

/** `at`: the revision that was asked for; the header has the present one. */
export const decodePage = (at: number | undefined): Decoder<Page> =>
  decoder(Range, ({ header, kvs = [], more = false }) => ({
    revision: at ?? revision(header?.revision),
    entries: kvs.map(entry),
    more
  }))

export const watchBody = (prefix: string, after: number): object => ({
  create_request: {
    ...within(prefix),
    start_revision: String(after + 1),
    // Keeps the revision of an idle watch from being compacted.
    progress_notify: true,
    // Else a single answer can have tens of megabytes.
    fragment: true
  }
})

/**
 * `Begun`: it watches. `Changes`: `isWhole` if the next message is not of the same revision. `revision`: all up to it has
 * been seen. `Cancelled`: `compacted` where the changes are gone.
 */
export type WatchMessage =
  | { readonly _tag: "Begun" }
  | { readonly _tag: "Changes"; readonly changes: ReadonlyArray<WatchChange>; readonly isWhole: boolean }
  | { readonly _tag: "Progress"; readonly revision: number }
  | { readonly _tag: "Cancelled"; readonly compacted: boolean; readonly why: string }

export const decodeWatch: Decoder<WatchMessage> = decoder(Watched, ({ result }): WatchMessage => {
  if (result.canceled === true)
    return {
      _tag: "Cancelled",
      compacted: result.compact_revision !== undefined,
      why: result.cancel_reason ?? "no reason given"
    }
  if (result.created === true) return { _tag: "Begun" }
  const { events = [], fragment = false } = result
  if (events.length === 0) return { _tag: "Progress", revision: revision(result.header?.revision) }
  const changes = events.map(
    ({ type, kv }): WatchChange =>
      type === "DELETE"
        ? { _tag: "Delete", key: plain(kv.key), revision: revision(kv.mod_revision) }
        : { _tag: "Put", entry: entry(kv) }
  )
  return { _tag: "Changes", changes, isWhole: !fragment }
})

export const leaseBody = (lease: LeaseId): object => ({ ID: lease })

export const grantBody = (ttl: Duration.Duration): object => ({
  TTL: String(Math.ceil(Duration.toSeconds(ttl)))
})

export const decodeGranted: Decoder<LeaseId> = decoder(Lease, ({ ID }) => ID)

/** Whether the lease lives. */
export const decodeKeptAlive: Decoder<boolean> = decoder(
  Schema.Struct({ result: Lease }),
  ({ result }) => revision(result.TTL) > 0
)

export const leaseStateBody = (lease: LeaseId): object => ({ ID: lease, keys: true })

export const decodeLeaseState: Decoder<LeaseState | undefined> = decoder(
  Schema.Struct({ TTL: text, grantedTTL: text, keys: Schema.optionalKey(Schema.Array(Schema.String)) }),
  ({ TTL, grantedTTL, keys = [] }) =>
    Number(TTL ?? "0") < 0
      ? undefined
      : { granted: Duration.seconds(Number(grantedTTL ?? "0")), keys: keys.map(plain) }
)

export const decodeToken: Decoder<string> = decoder(
  Schema.Struct({ token: Schema.String }),
  ({ token }) => token
)

export const decodeStatus = decoder(
  Schema.Struct({ version: text, dbSize: text, leader: text }),
  ({ version, dbSize, leader }) => ({
    version: version ?? "",
    bytes: Number(dbSize ?? "0"),
    hasLeader: leader !== undefined && leader !== "0"
  })
)

/** gRPC's code and etcd's words; `undefined` where no etcd wrote it. */
export const decodeFailure = (
  value: unknown
): { readonly code: number; readonly message: string } | undefined => {
  const failed = Schema.decodeUnknownOption(Failed)(value)
  if (Option.isSome(failed)) return failed.value
  const inStream = Schema.decodeUnknownOption(WatchFailed)(value)
  if (Option.isNone(inStream)) return undefined
  const { grpc_code, code = 0, message } = inStream.value.error
  return { code: grpc_code ?? code, message }
}
