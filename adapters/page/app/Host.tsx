/** What this host and this process have left, and what `portmapper doctor` finds. */
import type { PageChecks } from "../../../src/page/PageState.ts"
import { bytes, count, percent } from "./format.ts"
import type { Model } from "./model.ts"
import { Age, Command, Said } from "./Text.tsx"

export const Host = ({ model: { host, plugin, checks } }: { readonly model: Model }) => {
  const refused = host.relayRefused.tcp + host.relayRefused.udp
  return (
    <section class="host" aria-label="Host">
      <h2>
        Process{" "}
        <span class="quiet">
          running for <Age at={plugin.startedAt} />
        </span>
      </h2>
      <dl class="limits">
        <Limit name="Descriptors" {...host.descriptors} format={count} />
        <Limit name="Memory" {...host.memory} format={bytes} />
        <Limit name="Relay threads" {...host.relayThreads} format={count} mayBeFull />
      </dl>
      {refused === 0 ? null : (
        <p data-state="warning">
          The relay refused {count(host.relayRefused.tcp)} connections and {count(host.relayRefused.udp)} UDP
          flows for lack of descriptors. Raise the limit of open files (LimitNOFILE=).
        </p>
      )}
      <Checks checks={checks} />
    </section>
  )
}

interface LimitProps {
  readonly name: string
  readonly used: number
  readonly limit: number | null
  readonly format: (value: number) => string
  /** All of it in use is as it should be. */
  readonly mayBeFull?: boolean
}

const Limit = ({ name, used, limit, format, mayBeFull = false }: LimitProps) => {
  const share = limit === null || limit === 0 ? 0 : Math.min(used / limit, 1)
  const state = mayBeFull || share < 0.75 ? undefined : share < 0.9 ? "warning" : "error"
  return (
    <div data-state={state}>
      <dt>{name}</dt>
      <dd>
        {format(used)}
        {limit === null ? null : (
          <>
            {" "}
            <span class="quiet">of {format(limit)}</span>
            <meter
              aria-label={`${name}: ${percent(share)} of the limit`}
              max={limit}
              value={Math.min(used, limit)}
            />
          </>
        )}
      </dd>
    </div>
  )
}

const severity = { fail: 0, warn: 1, ok: 2 } as const
const states = { fail: "error", warn: "warning", ok: "ok" } as const

const Checks = ({ checks }: { readonly checks: PageChecks | null }) => (
  <>
    <h2>
      Checks{" "}
      {checks === null ? null : (
        <span class="quiet">
          <Age at={checks.at} /> ago
        </span>
      )}
    </h2>
    {checks === null ? (
      <p class="quiet">Checking this host …</p>
    ) : (
      <ul class="checks">
        {checks.checks
          .toSorted((a, b) => severity[a.status] - severity[b.status])
          .map(({ name, status, found, remedy }) => (
            <li key={name} data-status={status}>
              <span class="dot" data-state={states[status]}>
                <Said text={name} />
                <span class="unseen">: {status}</span>
              </span>
              <p>
                <Said text={found} />
              </p>
              {remedy === null ? null : <Command label={`the remedy for ${name}`} text={remedy} />}
            </li>
          ))}
      </ul>
    )}
  </>
)
