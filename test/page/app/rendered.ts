/** What components show, as text. */
import { type FunctionComponent, h } from "preact"
import { renderToString } from "preact-render-to-string"

/** The HTML of a component. */
export const html = <P>(component: FunctionComponent<P>, props: P): string =>
  renderToString(h(component as FunctionComponent<object>, props as object))

/** The texts of its elements of this kind, in order. */
export const texts = (text: string, tag: string): ReadonlyArray<string> =>
  [...text.matchAll(new RegExp(`<${tag}[ >].*?</${tag}>`, "gs"))].map(([element]) => plain(element))

export const plain = (text: string): string =>
  text
    .replaceAll(/<(?:"[^"]*"|[^">])*>/g, "")
    .replaceAll("&lt;", "<")
    .replaceAll("&amp;", "&")
    .replaceAll(/\s+/g, " ")
    .trim()
