/** The virtual list of TanStack as a hook of Preact: only what is in sight is in the document. */
import {
  elementScroll,
  observeElementOffset,
  observeElementRect,
  Virtualizer,
  type VirtualizerOptions
} from "@tanstack/virtual-core"
import { useLayoutEffect, useReducer, useState } from "preact/hooks"

type List = Virtualizer<HTMLElement, HTMLElement>
type Options = Pick<
  VirtualizerOptions<HTMLElement, HTMLElement>,
  "count" | "getScrollElement" | "estimateSize" | "getItemKey" | "scrollPaddingEnd"
>

export const useVirtualList = (options: Options): List => {
  const [, redraw] = useReducer<number, void>((times) => times + 1, 0)
  const all: VirtualizerOptions<HTMLElement, HTMLElement> = {
    ...options,
    overscan: 8,
    observeElementRect,
    observeElementOffset,
    scrollToFn: elementScroll,
    onChange: () => redraw()
  }
  const [list] = useState<List>(() => new Virtualizer(all))
  list.setOptions(all)
  useLayoutEffect(() => list._didMount(), [list])
  useLayoutEffect(() => list._willUpdate())
  return list
}
