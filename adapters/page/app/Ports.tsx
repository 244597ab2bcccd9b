/** The list of what is published: filtered, sorted, grouped, and as long as it gets. */
import { computed } from "@preact/signals"
import type { TargetedKeyboardEvent } from "preact"
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks"
import { arrange, type Item } from "./arrange.ts"
import { model } from "./connection.ts"
import { Empty } from "./Empty.tsx"
import { count } from "./format.ts"
import type { ColumnName, Grouping } from "./hash.ts"
import type { Model } from "./model.ts"
import { HeaderRow, Line } from "./Rows.tsx"
import { show, view } from "./view.ts"
import { useVirtualList } from "./virtual.ts"

// One by one, so that choosing a row arranges nothing anew.
const filter = computed(() => view.value.filter)
const sort = computed(() => view.value.sort)
const isDescending = computed(() => view.value.isDescending)
const group = computed(() => view.value.group)

const items = computed(() =>
  arrange(model.value?.rows.values() ?? [], {
    filter: filter.value,
    sort: sort.value,
    isDescending: isDescending.value,
    group: group.value
  })
)

export const Ports = ({ model: { rows } }: { readonly model: Model }) => {
  const listed = items.value
  const found = listed.reduce((total, { kind }) => total + Number(kind === "row"), 0)
  return (
    <section class="ports" aria-label="Ports">
      <Tools found={found} all={rows.size} />
      {listed.length === 0 ? <Empty all={rows.size} /> : <Grid items={listed} />}
    </section>
  )
}

const orders: ReadonlyArray<readonly [order: string, words: string]> = [
  ["frontend", "by port"],
  ["backends", "by backend"],
  ["owner", "by owner"],
  ["state", "by state"],
  ["-since", "newest first"],
  ["-connections", "most connections first"],
  ["-rate", "busiest first"],
  ["-traffic", "most traffic first"]
]

const Tools = ({ found, all }: { readonly found: number; readonly all: number }) => {
  const order = `${isDescending.value ? "-" : ""}${sort.value}`
  return (
    <search class="tools">
      <input
        id="filter"
        type="search"
        placeholder="Filter (press /)"
        aria-label="Filter by any word of a port, a container, a label"
        autocomplete="off"
        spellcheck={false}
        value={filter.value}
        onInput={({ currentTarget }) => show({ filter: currentTarget.value })}
        onKeyDown={onFilterKey}
      />
      <output class="found">{filter.value.trim() === "" ? "" : `${count(found)} of ${count(all)}`}</output>
      <label>
        <span>Group</span>
        <select
          value={group.value}
          onChange={({ currentTarget }) => show({ group: currentTarget.value as Grouping })}
        >
          <option value="none">by service</option>
          <option value="container">by container</option>
          <option value="owner">by owner</option>
        </select>
      </label>
      <label class="sort">
        <span>Sort</span>
        <select
          value={order}
          onChange={({ currentTarget: { value } }) =>
            show({ sort: value.replace("-", "") as ColumnName, isDescending: value.startsWith("-") })
          }
        >
          {orders.map(([value, words]) => (
            <option key={value} value={value}>
              {words}
            </option>
          ))}
          {orders.some(([value]) => value === order) ? null : <option value={order}>in another order</option>}
        </select>
      </label>
    </search>
  )
}

const onFilterKey = (event: TargetedKeyboardEvent<HTMLInputElement>): void => {
  if (event.key === "Escape") {
    event.preventDefault()
    if (view.value.filter === "") event.currentTarget.blur()
    else show({ filter: "" })
  } else if (event.key === "ArrowDown" || event.key === "Enter") {
    event.preventDefault()
    document.getElementById("ports")?.focus()
  }
}

const lineHeight = 34

const Grid = ({ items: listed }: { readonly items: ReadonlyArray<Item> }) => {
  const scroller = useRef<HTMLDivElement>(null)
  const [activeKey, setActive] = useState<string>()
  const active = Math.max(
    listed.findIndex(({ key }) => key === activeKey),
    0
  )
  const list = useVirtualList({
    count: listed.length,
    getScrollElement: () => scroller.current,
    estimateSize: () => lineHeight,
    getItemKey: (index) => listed[index]?.key ?? index,
    // The headings stay above what is scrolled.
    scrollPaddingEnd: lineHeight
  })
  const lines = list.getVirtualItems()
  const isShown = lines.some(({ index }) => index === active)
  const { chosen } = view.value

  // Another order begins at its beginning.
  useLayoutEffect(
    () => scroller.current?.scrollTo(0, 0),
    [filter.value, sort.value, isDescending.value, group.value]
  )

  // A link to a port shows it in the list, too.
  useEffect(() => {
    const index = listed.findIndex((item) => item.kind === "row" && item.row.key === chosen)
    if (index >= 0) move(index)
  }, [])

  const move = (to: number) => {
    const index = Math.min(Math.max(to, 0), listed.length - 1)
    setActive(listed[index]?.key)
    list.scrollToIndex(index)
  }
  const open = (item: Item | undefined) => {
    const row = item?.kind === "row" ? item.row : item?.kind === "service" ? item.rows[0] : undefined
    if (row === undefined) return
    setActive(item?.key)
    show({ chosen: row.key })
  }
  const onKeyDown = (event: TargetedKeyboardEvent<HTMLElement>) => {
    if (event.target !== event.currentTarget) return
    const page = (scroller.current?.clientHeight ?? 0) / lineHeight - 2
    const to = stepTo(event.key, active, Math.max(Math.floor(page), 1))
    if (to === undefined && event.key !== "Enter") return
    event.preventDefault()
    if (to === undefined) open(listed[active])
    else move(to)
  }
  return (
    <div class="scroller" ref={scroller}>
      <table
        id="ports"
        role="grid"
        tabIndex={0}
        aria-label="Published ports"
        aria-rowcount={listed.length + 1}
        aria-activedescendant={isShown ? `line-${active}` : undefined}
        onKeyDown={onKeyDown}
      >
        <HeaderRow sort={sort.value} isDescending={isDescending.value} />
        <tbody style={{ height: `${list.getTotalSize()}px` }}>
          {lines.map(({ index, key, start }) => {
            const item = listed[index]
            return item === undefined ? null : (
              <Line
                key={key}
                item={item}
                index={index}
                start={start}
                isActive={index === active}
                isChosen={item.kind === "row" && item.row.key === chosen}
                measure={list.measureElement}
                onOpen={() => open(item)}
              />
            )
          })}
        </tbody>
      </table>
    </div>
  )
}

/** Where a key leads from a line; `move` keeps it within the list. */
const stepTo = (key: string, from: number, page: number): number | undefined => {
  const steps: Record<string, number> = {
    ArrowDown: from + 1,
    ArrowUp: from - 1,
    PageDown: from + page,
    PageUp: from - page,
    Home: 0,
    End: Number.POSITIVE_INFINITY
  }
  return steps[key]
}
