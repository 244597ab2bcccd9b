/** The last 200 things that happened, the newest first. */
import type { Model, SeenEvent } from "./model.ts"
import { Said, Time } from "./Text.tsx"
import { portHref } from "./view.ts"

const words: Record<SeenEvent["kind"], string> = {
  mapped: "mapped",
  unmapped: "unmapped",
  refused: "refused",
  restored: "restored",
  tookOver: "took over",
  conflicted: "conflict",
  served: "served again"
}

export const Events = ({ model: { events } }: { readonly model: Model }) => (
  <section class="events" aria-label="Events">
    <h2>Events</h2>
    {events.length === 0 ? (
      <p class="quiet">None since this plugin started.</p>
    ) : (
      <EventList events={events} />
    )}
  </section>
)

export const EventList = ({ events }: { readonly events: ReadonlyArray<SeenEvent> }) => (
  <ol class="event-list">
    {events.toReversed().map((event) => (
      <li key={`${event.epoch} ${event.id}`} data-kind={event.kind}>
        <Time at={event.at} />
        <span class="what">
          <span class="kind">{wordOf(event)}</span>{" "}
          {event.key === null ? (
            <Said text={restOf(event)} />
          ) : (
            <a href={portHref(event.key)}>
              <Said text={restOf(event)} />
            </a>
          )}
        </span>
      </li>
    ))}
  </ol>
)

/** A newer plugin may know other kinds than this page. */
const wordOf = ({ kind }: SeenEvent): string => words[kind] ?? kind

/** Some texts begin with the word that is shown before them. */
const restOf = (event: SeenEvent): string => {
  const word = `${wordOf(event)} `
  return event.text.startsWith(word) ? event.text.slice(word.length) : event.text
}
