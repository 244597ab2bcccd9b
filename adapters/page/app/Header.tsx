/** Which host this is, whether it is live, and what flows through it now. */
import { Chart } from "./Chart.tsx"
import { bytesPerSecond, count, perSecond } from "./format.ts"
import type { Pane } from "./hash.ts"
import { LinkWord } from "./LinkState.tsx"
import { type Model, sum } from "./model.ts"
import { show, view } from "./view.ts"

export const Header = ({ model }: { readonly model: Model }) => {
  const { host, plugin, history } = model
  const times = history.map(([at]) => at / 1000)
  return (
    <header>
      <div class="brand">
        <h1>
          <bdi>{plugin.host}</bdi>
        </h1>
        <p>
          <LinkWord />
          <span title={`The plugin ${plugin.name}, version ${plugin.version}`}>
            {plugin.name} {plugin.version}
          </span>
        </p>
      </div>
      <dl class="figures">
        <div>
          <dt>Ports</dt>
          <dd>{count(host.mappings)}</dd>
        </div>
        <div data-state={host.problems > 0 ? "error" : undefined}>
          <dt>Wrong</dt>
          <dd>{count(host.problems)}</dd>
        </div>
        <Flow
          name="New connections"
          value={host.connectionsRate}
          format={perSecond}
          times={times}
          values={history.map(([, connections]) => connections)}
        />
        <Flow
          name="Traffic"
          value={sum(host.bytesInRate, host.bytesOutRate)}
          format={bytesPerSecond}
          times={times}
          values={history.map(([, , bytesIn, bytesOut]) => sum(bytesIn, bytesOut))}
        />
      </dl>
      <Tabs />
    </header>
  )
}

interface FlowProps {
  readonly name: string
  readonly value: number | null
  readonly format: (value: number) => string
  readonly times: ReadonlyArray<number>
  readonly values: ReadonlyArray<number | null>
}

const Flow = ({ name, value, format, times, values }: FlowProps) => {
  const highest = values.reduce<number>((high, each) => Math.max(high, each ?? 0), 0)
  const words = value === null ? "not counted" : format(value)
  return (
    <div class="flow">
      <dt>{name}</dt>
      <dd>{value === null ? "–" : words}</dd>
      <dd>
        <Chart
          label={`${name} of the last two minutes: now ${words}, at most ${format(highest)}`}
          series={{ times, values }}
          height={30}
        />
      </dd>
    </div>
  )
}

const tabs: ReadonlyArray<readonly [Pane, string]> = [
  ["ports", "Ports"],
  ["host", "Host"],
  ["events", "Events"]
]

/** Seen where the window is too narrow for all at once. */
const Tabs = () => (
  <nav aria-label="Parts of this page">
    {tabs.map(([pane, name]) => (
      <button
        key={pane}
        type="button"
        aria-current={view.value.pane === pane ? "page" : undefined}
        onClick={() => show({ pane, chosen: undefined })}
      >
        {name}
      </button>
    ))}
  </nav>
)
