/** How the traffic of a port goes, as a way for each kind of client: from whom, over what, to which backend. */
import { backendOf, type Row } from "./model.ts"
import { Container } from "./Text.tsx"

interface Way {
  readonly from: string
  readonly over: string
}

export const Ways = ({ row }: { readonly row: Row }) => {
  const ways = waysOf(row)
  return (
    <>
      <dl class="ways">
        {ways.map(({ from, over }) => (
          <div key={from}>
            <dt>{from}</dt>
            <dd>{over}</dd>
            <dd>
              {row.backend.container === null ? (
                <bdi>{backendOf(row)}</bdi>
              ) : (
                <Container name={row.backend.container} />
              )}
            </dd>
          </div>
        ))}
      </dl>
      <p class="quiet">{heldText(row)}</p>
    </>
  )
}

const waysOf = ({ carriers, mode, problem }: Row): ReadonlyArray<Way> => {
  if (problem?.severity === "error" && carriers?.kernel !== true && carriers?.relay === null)
    return [{ from: "From everywhere", over: "nothing, until it is served" }]
  if (carriers === null) return [{ from: "From everywhere", over: `as mode ${mode} does` }]
  if (carriers.relay === "everything") return [{ from: "From everywhere", over: "the relay" }]
  const outside = carriers.kernel ? "the kernel's map" : otherWays.get(mode)
  return [
    ...(outside === undefined ? [] : [{ from: "From elsewhere", over: outside }]),
    ...(carriers.relay === "loopback"
      ? [{ from: "From 127.0.0.1 and ::1 of this host", over: "the relay" }]
      : [])
  ]
}

const otherWays: ReadonlyMap<string, string> = new Map([
  ["engine", "the Engine's own rules"],
  ["routed", "the network's routes"]
])

const heldText = ({ carriers, port, protocol }: Row): string => {
  if (port === 0) return "It has no host port."
  if (carriers?.socket === true)
    return `A socket of the plugin holds ${port}/${protocol}: no other process gets it.`
  return carriers === null ? "" : `No socket of the plugin holds ${port}/${protocol}.`
}
