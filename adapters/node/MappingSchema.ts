/**
 * The tables of the mapping file, their migrations, and the row of a mapping.
 */
import type { DatabaseSync, SQLInputValue, SQLOutputValue } from "node:sqlite"
import { Result } from "effect"
import type { Stored, StoredState } from "../../src/mapper/MappingStore.ts"
import { modes } from "../../src/mapper/model/Labels.ts"
import { mappingKey, type Share } from "../../src/mapper/model/Mapping.ts"
import { parseAddress } from "../../src/protocol/Address.ts"
import { protocolNumber, protocolOfNumber } from "../../src/protocol/Protocol.ts"
import { parseSlots, sizes, slotsText } from "../../src/protocol/Slots.ts"
import { jsonOf } from "./jsonOf.ts"

/** `application_id` in the file's header: "pmap". */
export const applicationId = 0x706d6170

/**
 * The migrations from version n to n + 1, in order; never changed once released. `since_millis` counts from the Unix
 * epoch, addresses are the texts of the request, labels a JSON array of pairs; `container` is null while it is
 * unknown.
 */
export const migrations: ReadonlyArray<string> = [
  `
  CREATE TABLE mapping (
    key TEXT PRIMARY KEY,
    state TEXT NOT NULL CHECK (state IN ('intent', 'applied', 'answered')),
    protocol INTEGER NOT NULL,
    host TEXT NOT NULL,
    asked TEXT NOT NULL,
    port INTEGER NOT NULL CHECK (port BETWEEN 0 AND 65535),
    backend_host TEXT NOT NULL,
    backend_port INTEGER NOT NULL CHECK (backend_port BETWEEN 0 AND 65535),
    mode TEXT NOT NULL,
    labels TEXT NOT NULL,
    owner TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    since_millis INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE engine (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    epoch INTEGER NOT NULL,
    activated INTEGER NOT NULL CHECK (activated IN (0, 1))
  ) STRICT;
  INSERT INTO engine VALUES (1, 0, 0);
  PRAGMA application_id = ${applicationId};
  `,
  "ALTER TABLE mapping ADD COLUMN container TEXT",
  // The part in a service as JSON, of which the slots are a text of ranges; `drained` is 1 or null.
  "ALTER TABLE mapping ADD COLUMN share TEXT; ALTER TABLE mapping ADD COLUMN drained INTEGER"
]

/** Migrates a file from its version to the latest; each migration is its own transaction. Throws. */
export const migrateUnsafe = (database: DatabaseSync, from: number, steps: ReadonlyArray<string>): void => {
  steps.slice(from).forEach((step, index) => {
    database.exec("BEGIN IMMEDIATE")
    try {
      database.exec(step)
      database.exec(`PRAGMA user_version = ${from + index + 1}`)
      database.exec("COMMIT")
    } catch (cause) {
      if (database.isTransaction) database.exec("ROLLBACK")
      throw cause
    }
  })
}

const columns = [
  "key",
  "state",
  "protocol",
  "host",
  "asked",
  "port",
  "backend_host",
  "backend_port",
  "mode",
  "labels",
  "owner",
  "epoch",
  "since_millis",
  "container",
  "share",
  "drained"
]

export const selectMappings = `SELECT ${columns.join(", ")} FROM mapping`

export const upsertMapping = `
  INSERT INTO mapping (${columns.join(", ")}) VALUES (${columns.map(() => "?").join(", ")})
  ON CONFLICT (key) DO UPDATE SET
    ${columns
      .slice(1)
      .map((column) => `${column} = excluded.${column}`)
      .join(", ")}`

/** For a row of which only the state differs. */
export const updateState = "UPDATE mapping SET state = ? WHERE key = ?"

/** The values of a row, in the order of `columns`. */
export const rowOf = ({ mapping, state }: Stored): Array<SQLInputValue> => [
  mappingKey(mapping),
  state,
  protocolNumber[mapping.protocol],
  mapping.host.text,
  mapping.requestedAddress,
  mapping.port,
  mapping.backend.address.text,
  mapping.backend.port,
  mapping.mode,
  mapping.labels.size === 0 ? "[]" : JSON.stringify([...mapping.labels]),
  mapping.owner,
  mapping.epoch,
  mapping.sinceMillis,
  mapping.container ?? null,
  mapping.share === undefined
    ? null
    : JSON.stringify({ ...mapping.share, idle: undefined, slots: slotsText(mapping.share.slots) }),
  mapping.drained ? 1 : null
]

/**
 * Reads rows as mappings, in the order of `columns`, whose types the tables guarantee; a failure says what is wrong
 * with a row. Rows share addresses and labels, so each text is parsed once.
 */
export const makeRowReader = (): ((row: ReadonlyArray<SQLOutputValue>) => Result.Result<Stored, string>) => {
  const addressOf = remembering(parseAddress)
  const labelsOf = remembering(parseLabels)
  return (row) => {
    const [
      key,
      stateText,
      number,
      hostText,
      requestedAddress,
      port,
      backendText,
      backendPort,
      modeText,
      labelsText
    ] = row as Row
    const [owner, epoch, sinceMillis, container, shareText, drained] = row.slice(10) as MoreOfRow
    const host = addressOf(hostText)
    const backend = addressOf(backendText)
    const protocol = protocolOfNumber(number)
    const mode = modes.find((known) => known === modeText)
    const labels = labelsOf(labelsText)
    if (Result.isFailure(host)) return Result.fail(`${hostText}: ${host.failure}`)
    if (Result.isFailure(backend)) return Result.fail(`${backendText}: ${backend.failure}`)
    if (protocol === undefined) return Result.fail(`there is no protocol ${number}`)
    if (mode === undefined) return Result.fail(`there is no mode ${modeText}`)
    if (labels === undefined) return Result.fail(`the labels of ${key} are not pairs of texts`)
    // Version 0.1 wrote an `intent` before it changed the kernel: whether the call was answered is unknown.
    const state = stateText === "intent" ? "applied" : stateText
    const share = shareText === null ? undefined : parseShare(shareText)
    if (shareText !== null && share === undefined)
      return Result.fail(`${shareText} of ${key} is no part in a service`)
    const mapping = {
      protocol,
      host: host.success,
      requestedAddress,
      port,
      backend: { address: backend.success, port: backendPort },
      mode,
      labels,
      owner,
      epoch,
      sinceMillis,
      container: container ?? undefined,
      ...(key.startsWith("standby ") ? { standby: true as const } : {}),
      ...(share === undefined ? {} : { share }),
      ...(drained === null ? {} : { drained: true as const })
    }
    return mappingKey(mapping) === key
      ? Result.succeed({ mapping, state })
      : Result.fail(`${key} is not the key of its mapping`)
  }
}

type MoreOfRow = [string, number, number, string | null, string | null, number | null]
type Row = [string, StoredState | "intent", number, string, string, number, string, number, string, string]

const remembering = <A>(parse: (text: string) => A): ((text: string) => A) => {
  const known = new Map<string, A>()
  return (text) => {
    const before = known.get(text)
    if (before !== undefined) return before
    const parsed = parse(text)
    known.set(text, parsed)
    return parsed
  }
}

const parseLabels = (text: string): ReadonlyMap<string, string> | undefined => {
  const pairs = jsonOf(text)
  return Array.isArray(pairs) && pairs.every(isPair) ? new Map(pairs) : undefined
}

const parseShare = (text: string): Share | undefined => {
  const value = jsonOf(text)
  if (typeof value !== "object" || value === null) return undefined
  const { service, balance, size, slots: slotsRead } = value as { readonly [name in keyof Share]?: unknown }
  const slots = typeof slotsRead === "string" ? parseSlots(slotsRead) : undefined
  const known = sizes.find((one) => one === size)
  if (typeof service !== "string" || (balance !== "random" && balance !== "source")) return undefined
  return known === undefined || slots === undefined || (slots.at(-1) ?? 0) >= known
    ? undefined
    : { service, balance, size: known, slots }
}

const isPair = (value: unknown): value is [string, string] =>
  Array.isArray(value) && value.length === 2 && value.every((part) => typeof part === "string")
