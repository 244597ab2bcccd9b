/** What the reader looks at, as the hash of the URL: a link to the page shows another reader the same. Pure. */

export const columns = [
  "frontend",
  "backends",
  "mode",
  "owner",
  "state",
  "since",
  "connections",
  "rate",
  "bytes",
  "traffic"
] as const

export type ColumnName = (typeof columns)[number]

const groupings = ["none", "container", "owner"] as const

export type Grouping = (typeof groupings)[number]

/** Which part a narrow window shows; a wide one shows all of them. */
const panes = ["ports", "host", "events"] as const

export type Pane = (typeof panes)[number]

export interface View {
  readonly filter: string
  readonly sort: ColumnName
  readonly isDescending: boolean
  readonly group: Grouping
  /** The key of the row whose own view is open. */
  readonly chosen: string | undefined
  readonly pane: Pane
}

export const plainView: View = {
  filter: "",
  sort: "frontend",
  isDescending: false,
  group: "none",
  chosen: undefined,
  pane: "ports"
}

/** Takes what it knows of a hash, which anyone may have written, and the plain view for the rest. */
export const parseHash = (hash: string): View => {
  const parameters = new URLSearchParams(hash.replace(/^#/, ""))
  const sort = parameters.get("sort") ?? ""
  return {
    filter: parameters.get("filter") ?? plainView.filter,
    sort: oneOf(columns, sort.replace(/^-/, "")) ?? plainView.sort,
    isDescending: sort.startsWith("-"),
    group: oneOf(groupings, parameters.get("group")) ?? plainView.group,
    chosen: parameters.get("port") ?? undefined,
    pane: oneOf(panes, parameters.get("pane")) ?? plainView.pane
  }
}

/** Names only what differs from the plain view; of that view itself `#`. */
export const formatHash = (view: View): string => {
  const parameters = new URLSearchParams()
  if (view.filter !== plainView.filter) parameters.set("filter", view.filter)
  if (view.sort !== plainView.sort || view.isDescending)
    parameters.set("sort", `${view.isDescending ? "-" : ""}${view.sort}`)
  if (view.group !== plainView.group) parameters.set("group", view.group)
  if (view.chosen !== undefined) parameters.set("port", view.chosen)
  if (view.pane !== plainView.pane) parameters.set("pane", view.pane)
  return `#${parameters}`
}

const oneOf = <A extends string>(all: ReadonlyArray<A>, text: string | null): A | undefined =>
  all.find((each) => each === text)
