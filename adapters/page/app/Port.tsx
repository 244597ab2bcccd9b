/** One port: what is wrong with it, what flows, by which way, under which policy, and how to unmap it. */

import { useEffect, useRef } from "preact/hooks"
import { serviceKey } from "./arrange.ts"
import { Chart, type Series } from "./Chart.tsx"
import { EventList } from "./Events.tsx"
import { bytes, bytesPerSecond, count, percent, perSecond } from "./format.ts"
import { backendOf, frontendOf, historyOf, type Model, type Row, sum } from "./model.ts"
import { State } from "./State.tsx"
import { Age, Command, Container, Said } from "./Text.tsx"
import { closePort, portHref } from "./view.ts"
import { Ways } from "./Ways.tsx"

interface PortProps {
  readonly model: Model
  readonly row: Row | undefined
  /** Its key, which names it even when it is gone. */
  readonly name: string
}

export const Port = ({ model, row, name }: PortProps) => {
  const close = useRef<HTMLButtonElement>(null)
  // In a narrow window it takes the place of the list that had the focus.
  useEffect(() => {
    if (document.getElementById("ports")?.checkVisibility() !== true) close.current?.focus()
  }, [name])
  return (
    <section class="port" aria-label="Chosen port">
      <header>
        <h2>{row === undefined ? <Said text={name} /> : <bdi>{frontendOf(row)}</bdi>}</h2>
        <button type="button" ref={close} onClick={closePort} aria-label="Close this port">
          Close
        </button>
      </header>
      {row === undefined ? <p>It is not mapped any more.</p> : <Details model={model} row={row} />}
      <PortEvents model={model} name={name} />
    </section>
  )
}

const Details = ({ model, row }: { readonly model: Model; readonly row: Row }) => (
  <>
    <p class="summary">
      <State row={row} />
      <span>
        <span class="quiet">mode</span> <Said text={row.mode} />
      </span>
      <span>
        <span class="quiet">owner</span> <Said text={row.owner} />
      </span>
      <span>
        <span class="quiet">for</span> <Age at={row.since} />
      </span>
    </p>
    {row.problem === null ? null : (
      <div class="wrong" data-state={row.problem.severity}>
        <p>
          <Said text={row.problem.reason} />
        </p>
        {row.problem.remedy === null ? null : <Command label="the remedy" text={row.problem.remedy} />}
      </div>
    )}
    <Flows model={model} row={row} />
    <h3>How its traffic goes</h3>
    <Ways row={row} />
    <Backends model={model} row={row} />
    <h3>Policy</h3>
    <Policy row={row} />
    {row.unmap === null ? null : (
      <>
        <h3>To unmap it</h3>
        <Command label="the command that unmaps it" text={row.unmap} />
      </>
    )}
  </>
)

const Flows = ({ model, row }: { readonly model: Model; readonly row: Row }) => {
  const history = historyOf(model, row.id)
  const times = history.map(([at]) => at / 1000)
  const { connections, bytesIn, bytesOut } = row
  return (
    <div class="flows">
      <Flow
        name="New connections"
        value={row.connectionsRate}
        inAll={[
          ...(connections === null ? [] : [`${count(connections)} in all`]),
          ...(row.open === null ? [] : [`${count(row.open)} still open`])
        ].join(", ")}
        series={{ times, values: history.map(([, each]) => each) }}
        format={perSecond}
        least={1}
      />
      <Flow
        name="Traffic"
        value={sum(row.bytesInRate, row.bytesOutRate)}
        inAll={bytesIn === null ? "" : `${bytes(bytesIn)} in, ${bytes(bytesOut ?? 0)} out`}
        series={{ times, values: history.map(([, , each, other]) => sum(each, other)) }}
        format={bytesPerSecond}
        least={1000}
      />
    </div>
  )
}

interface FlowProps {
  readonly name: string
  readonly value: number | null
  readonly inAll: string
  readonly series: Series
  readonly format: (value: number) => string
  readonly least: number
}

const Flow = ({ name, value, inAll, series, format, least }: FlowProps) => (
  <figure>
    <figcaption>
      {name} <b>{value === null ? "not counted" : format(value)}</b>
      <span class="quiet">{inAll}</span>
    </figcaption>
    {value === null ? null : (
      <Chart
        label={`${name} of this port in the last two minutes, as far as this page has seen them: now ${format(value)}`}
        series={series}
        height={92}
        format={format}
        least={least}
      />
    )}
  </figure>
)

/** Of a service: who shares it. */
const Backends = ({ model, row }: { readonly model: Model; readonly row: Row }) => {
  if (row.service === null) return null
  const name = serviceKey(row)
  const members = model.rows
    .values()
    .filter((each) => each.service !== null && serviceKey(each) === name)
    .toArray()
  return (
    <>
      <h3>
        Service <Said text={row.service} />
      </h3>
      <ul class="backends">
        {members.map((each) => (
          <li key={each.key} aria-current={each.key === row.key ? "true" : undefined}>
            <a href={portHref(each.key)}>
              {each.backend.container === null ? null : <Container name={each.backend.container} />}{" "}
              <bdi class="quiet">{backendOf(each)}</bdi>
            </a>
            <Share row={each} />
          </li>
        ))}
      </ul>
    </>
  )
}

const Share = ({ row: { backend } }: { readonly row: Row }) => {
  if (backend.slots === null) return null
  const { has, of } = backend.slots
  return (
    <span title={`${has} of ${of} slots`}>
      {has === 0 ? <span class="quiet">no new connections</span> : percent(has / of)}
    </span>
  )
}

const Policy = ({ row }: { readonly row: Row }) => (
  <>
    {row.labels.every(isName) ? <p class="quiet">No labels: everybody may connect.</p> : null}
    <dl class="labels">
      {row.labels
        .filter((label) => !isName(label))
        .map(({ name, value }) => (
          <div key={name}>
            <dt>
              <Said text={name} />
            </dt>
            <dd>
              <Said text={value} />
            </dd>
          </div>
        ))}
    </dl>
    {row.refused.map(({ label, count: times }) => (
      <p key={label}>
        <bdi>{label}</bdi> refused <b>{count(times)}</b>
      </p>
    ))}
  </>
)

/** It names the container, which is shown elsewhere. */
const isName = ({ name }: Row["labels"][number]): boolean => name === "portmapper.container"

const PortEvents = ({ model, name }: { readonly model: Model; readonly name: string }) => {
  const events = model.events.filter(({ key }) => key === name)
  if (events.length === 0) return null
  return (
    <>
      <h3>What happened to it</h3>
      <EventList events={events} />
    </>
  )
}
