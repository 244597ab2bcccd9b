/**
 * What pages read: the whole state, and after it each change. Looks at the mappings at most once a second, however many
 * pages there are, and not at all without one; a look that takes long makes the next one later. What is sent is encoded
 * once for all pages.
 */
import { Clock, Effect, Latch, type Scope, Semaphore } from "effect"
import type { Journal } from "../../src/page/Journal.ts"
import type { RowContext } from "../../src/page/PageRows.ts"
import type { PageChange, PageChecks, PageHost, PageState } from "../../src/page/PageState.ts"
import { type Look, PageView } from "../../src/page/PageView.ts"
import type { Driver, ListedMapping } from "../../src/protocol/Driver.ts"
import type { Diagnosis, Doctor } from "./Doctor.ts"

export interface FeedOptions {
  readonly driver: Driver["Service"]
  readonly journal: Journal
  readonly plugin: PageState["plugin"]
  /** Different in each process, and in each of its generations. */
  readonly epoch: string
  readonly use: Effect.Effect<HostUse>
  /** The processor time that this thread has had, in milliseconds. */
  readonly processorMillis: () => number
  readonly doctor: Doctor
  readonly reaching: string
}

/** What the process uses of the host. */
export type HostUse = Pick<PageHost, "descriptors" | "memory" | "relayThreads" | "relayRefused">

/** A page's connection. */
export interface Reader {
  /** Whether it has taken everything that was written. */
  readonly isReady: () => boolean
  readonly write: (parts: ReadonlyArray<Uint8Array>) => void
}

export interface PageFeed {
  /** The state as JSON. Looks, unless the last look is recent enough. */
  readonly state: Effect.Effect<Uint8Array>
  /** Writes server-sent events until the returned function is called; goes on after the event with this id, if it can. */
  readonly follow: (reader: Reader, lastEventId: string | undefined) => () => void
}

/** From one look to the next. */
const intervalMillis = 1_000
/** The part of a processor that looks may take: one in so many. Threads of V8 take some more for its garbage. */
const dutyCycle = 40
const longestIntervalMillis = 10_000

/** How old the checks of `doctor` may be: while pages are open, and for one that opens. */
const checkedEveryMillis = 300_000
const checkedAtOnceMillis = 60_000

/** How much of past changes is kept for readers that missed some. */
const keptChanges = 30
const keptBytes = 1 << 20

interface Following {
  readonly reader: Reader
  /** The sequence of what it was sent last; `undefined` before the first state. */
  sent: number | undefined
}

interface Encoded {
  readonly sequence: number
  readonly bytes: Uint8Array
}

export const makeFeed = Effect.fnUntraced(function* (
  options: FeedOptions
): Effect.fn.Return<PageFeed, never, Scope.Scope> {
  const clock = yield* Clock.Clock
  const now = () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6
  const feed = new Feed(options)
  const turns = yield* Semaphore.make(1)
  const look = turns.withPermit(
    Effect.suspend(() => (now() < feed.nextLookAt ? Effect.void : lookOnce(options, feed, now)))
  )
  yield* Effect.forkScoped(
    Effect.forever(
      Effect.gen(function* () {
        yield* feed.wanted.await
        yield* look
        yield* Effect.sleep(Math.max(feed.nextLookAt - now(), 1))
      })
    )
  )
  return {
    state: Effect.andThen(
      look,
      Effect.sync(() => feed.stateBytes())
    ),
    follow: (reader, lastEventId) => feed.follow(reader, lastEventId, now() < feed.nextLookAt)
  }
})

const lookOnce = Effect.fnUntraced(function* (
  { driver, use, doctor, processorMillis }: FeedOptions,
  feed: Feed,
  now: () => number
) {
  const before = processorMillis()
  doctor.ask(checkedEveryMillis)
  const listed: ReadonlyArray<ListedMapping> = yield* Effect.catch(
    driver.listPorts ?? Effect.succeed([]),
    // The log has the reason already; the page keeps what it has.
    () => Effect.succeed(feed.listed)
  )
  const lookedAt = now()
  const look = { at: yield* Clock.currentTimeMillis, elapsedMillis: lookedAt - feed.lookedAt, listed }
  feed.lookedAt = lookedAt
  feed.take(look, doctor.found(), yield* use)
  feed.send()
  const millis = (processorMillis() - before) * dutyCycle
  feed.nextLookAt = lookedAt + Math.min(Math.max(millis, intervalMillis), longestIntervalMillis)
})

class Feed {
  readonly wanted = Latch.makeUnsafe(false)
  /** Of a monotonic clock. */
  lookedAt = Number.NEGATIVE_INFINITY
  nextLookAt = Number.NEGATIVE_INFINITY
  listed: ReadonlyArray<ListedMapping> = []
  readonly #options: FeedOptions
  readonly #view = new PageView()
  readonly #following = new Set<Following>()
  /** The last ones, and their length. */
  readonly #changes: Array<Encoded> = []
  #bytes = 0
  #state: Encoded | undefined
  #context: RowContext
  #sequence = 0
  #at = 0
  #host: PageHost | undefined
  #checks: PageChecks | null = null
  /** The latest event that a change has had. */
  #latest = 0

  constructor(options: FeedOptions) {
    this.#options = options
    this.#context = { drops: new Map(), reaching: options.reaching }
  }

  take(look: Omit<Look, "context">, { checks, drops }: Diagnosis, use: HostUse): void {
    const { at, listed } = look
    const { journal, reaching } = this.#options
    if (drops !== this.#context.drops) this.#context = { drops, reaching }
    const { host, turned, ...seen } = this.#view.look({ ...look, context: this.#context })
    for (const { row, to } of turned)
      journal.note({
        kind: to,
        text: row.problem?.reason ?? `${row.address}:${row.port}/${row.protocol} is served`,
        key: row.key,
        owner: row.owner
      })
    this.listed = listed
    this.#at = at
    this.#host = { ...host, ...use }
    this.#sequence++
    const change: PageChange = {
      sequence: this.#sequence,
      at,
      host: this.#host,
      ...seen,
      events: journal.after(this.#latest),
      checks: checks === this.#checks ? null : checks
    }
    this.#checks = checks
    this.#latest = journal.latest
    this.#keep({
      sequence: this.#sequence,
      bytes: Buffer.concat(this.#event("change", Buffer.from(JSON.stringify(change))))
    })
  }

  /** The state as JSON, encoded once for each look while there are pages. */
  stateBytes(): Uint8Array {
    if (this.#state?.sequence === this.#sequence) return this.#state.bytes
    const { journal, plugin, epoch } = this.#options
    const state: Omit<PageState, "host"> & { readonly host: PageHost | undefined } = {
      epoch,
      sequence: this.#sequence,
      at: this.#at,
      plugin,
      host: this.#host,
      history: this.#view.history,
      rows: this.#view.rows,
      events: journal.after(0).filter(({ id }) => id <= this.#latest),
      checks: this.#checks
    }
    const bytes = Buffer.from(JSON.stringify(state))
    if (this.#following.size > 0) this.#state = { sequence: this.#sequence, bytes }
    return bytes
  }

  /** `isFresh`: no look is about to be made. */
  follow(reader: Reader, lastEventId: string | undefined, isFresh: boolean): () => void {
    const following: Following = { reader, sent: this.#sequenceOf(lastEventId) }
    reader.write([Buffer.from(`retry: ${intervalMillis}\n\n`)])
    this.#following.add(following)
    this.wanted.openUnsafe()
    this.#options.doctor.ask(checkedAtOnceMillis)
    if (isFresh) this.#sendTo(following)
    return () => {
      this.#following.delete(following)
      if (this.#following.size > 0) return
      this.wanted.closeUnsafe()
      this.#changes.length = 0
      this.#bytes = 0
      this.#state = undefined
    }
  }

  send(): void {
    for (const following of this.#following) this.#sendTo(following)
  }

  /** A reader that has not read everything gets what it misses later, so that little is ever kept for it. */
  #sendTo(following: Following): void {
    const { reader, sent } = following
    if (!reader.isReady() || sent === this.#sequence) return
    const missed = sent === undefined ? [] : this.#changes.filter(({ sequence }) => sequence > sent)
    const isWhole = missed.length > 0 && missed.length === this.#sequence - (sent ?? 0)
    following.sent = this.#sequence
    reader.write(isWhole ? missed.map(({ bytes }) => bytes) : this.#event("state", this.stateBytes()))
  }

  /** A state is not copied: readers share its bytes. */
  #event(name: "state" | "change", json: Uint8Array): ReadonlyArray<Uint8Array> {
    const head = `id: ${this.#options.epoch}-${this.#sequence}\nevent: ${name}\ndata: `
    return [Buffer.from(head), json, blankLine]
  }

  #sequenceOf(lastEventId: string | undefined): number | undefined {
    const prefix = `${this.#options.epoch}-`
    const text = lastEventId?.startsWith(prefix) === true ? lastEventId.slice(prefix.length) : ""
    return /^[1-9]\d{0,14}$/.test(text) && Number(text) <= this.#sequence ? Number(text) : undefined
  }

  #keep(change: Encoded): void {
    this.#changes.push(change)
    this.#bytes += change.bytes.length
    while (this.#changes.length > (this.#bytes > keptBytes ? 1 : keptChanges))
      this.#bytes -= this.#changes.shift()?.bytes.length ?? 0
  }
}

const blankLine = Buffer.from("\n\n")
