/** The last events of a mapper, for the page. Costs next to nothing where no page is open. */
import { cut } from "./PageRows.ts"
import type { PageEvent } from "./PageState.ts"

/** How many are kept. */
export const journalLength = 200

/** A refusal that is repeated within this time, as one of `watch` is, is noted once. */
const repeatedMillis = 60_000

export type Noted = Omit<PageEvent, "id" | "at">

export class Journal {
  readonly #now: () => number
  readonly #events: Array<PageEvent> = []
  #next = 1

  /** `now` returns milliseconds since the Unix epoch. */
  constructor(now: () => number) {
    this.#now = now
  }

  note({ kind, text, key, owner }: Noted): void {
    const at = this.#now()
    const event = {
      id: this.#next,
      at,
      kind,
      text: cut(text),
      key,
      owner: owner === null ? null : cut(owner)
    }
    if (kind === "refused" && this.#events.some((other) => isRepeated(other, event))) return
    this.#next++
    this.#events.push(event)
    if (this.#events.length > journalLength) this.#events.shift()
  }

  /** Those after the event with this id, the oldest first. */
  after(id: number): ReadonlyArray<PageEvent> {
    return this.#events.filter((event) => event.id > id)
  }

  /** The id of the latest; 0 before the first. */
  get latest(): number {
    return this.#next - 1
  }
}

const isRepeated = (before: PageEvent, event: PageEvent): boolean =>
  before.kind === event.kind &&
  before.text === event.text &&
  before.owner === event.owner &&
  event.at - before.at < repeatedMillis
