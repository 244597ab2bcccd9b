/** A line of what happened each second, drawn by uPlot on a canvas; its label says it in words. */
import { useEffect, useRef } from "preact/hooks"
import uPlot from "uplot"
import { clockTime } from "./format.ts"
import { isDark } from "./theme.ts"

export interface Series {
  /** Epoch seconds, ascending. */
  readonly times: ReadonlyArray<number>
  /** `null` where nothing is known. */
  readonly values: ReadonlyArray<number | null>
}

interface ChartProps {
  readonly label: string
  readonly series: Series
  readonly height: number
  /** Names the values on an axis; without it the line stands alone. */
  readonly format?: (value: number) => string
  /** What the top of the chart is at least. */
  readonly least?: number
}

export const Chart = ({ label, series, height, format, least = 1 }: ChartProps) => {
  const element = useRef<HTMLDivElement>(null)
  const plot = useRef<uPlot>(undefined)
  const dark = isDark.value
  const data = (): uPlot.AlignedData => [[...series.times], [...series.values]]

  // Another theme has other colours, which are read when it is made.
  useEffect(() => {
    const parent = element.current
    if (parent === null) return
    const made = new uPlot(options(parent, { height, format, least }), data(), parent)
    plot.current = made
    const observer = new ResizeObserver(() => {
      const width = parent.clientWidth
      if (width > 0 && width !== made.width) made.setSize({ width, height })
    })
    observer.observe(parent)
    return () => {
      observer.disconnect()
      made.destroy()
    }
  }, [dark, height, format, least])

  useEffect(() => plot.current?.setData(data()), [series])

  return <div class="chart" role="img" aria-label={label} style={{ height: `${height}px` }} ref={element} />
}

/** As much as is shown of anything, so that charts can be compared. */
const spanSeconds = 120

interface Look {
  readonly height: number
  readonly format: ChartProps["format"]
  readonly least: number
}

const options = (parent: HTMLElement, { height, format, least }: Look): uPlot.Options => {
  const style = getComputedStyle(parent)
  const colour = (name: string) => style.getPropertyValue(name).trim()
  const [line, area, muted, grid] = ["--line", "--area", "--muted", "--rule"].map(colour)
  const axis = { stroke: muted, font: `11px ${style.fontFamily}`, ticks: { show: false } } as const
  return {
    width: Math.max(parent.clientWidth, 1),
    height,
    padding: format === undefined ? [2, 0, 2, 0] : [8, 28, 0, 0],
    legend: { show: false },
    cursor: { show: false },
    scales: {
      x: { range: (_, __, max) => [max - spanSeconds, max] },
      y: { range: (_, __, max) => [0, Math.max(max ?? 0, least)] }
    },
    axes:
      format === undefined
        ? [{ show: false }, { show: false }]
        : [
            {
              ...axis,
              size: 22,
              grid: { show: false },
              space: 90,
              incrs: [30, 60],
              values: (_, splits) => splits.map((seconds) => clockTime(seconds * 1000))
            },
            {
              ...axis,
              size: 72,
              space: 24,
              grid: { stroke: grid ?? "", width: 1 },
              values: (_, splits) => splits.map(format)
            }
          ],
    series: [
      {},
      { stroke: line ?? "", fill: area ?? "", width: 1.5, points: { show: false }, spanGaps: false }
    ]
  } as uPlot.Options
}
