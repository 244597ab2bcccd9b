/** The conformance report: for readers, for programs, for a CI. */
import { checks, handshake } from "./Checks.ts"
import type { Checked, Conformance } from "./Conform.ts"
import { exchangeText } from "./Wire.ts"

/** A line for each check, then each failed check with all its exchanges. */
export const conformanceText = (conformance: Conformance): string =>
  [...conformance.checked.map(checkedText), conformanceSummary(conformance)].join("\n")

/** One check, as one line or two. */
export const checkedText = ({ id, holds, required, standing, why }: Checked): string =>
  [
    `${standing.padEnd(8)}${id.padEnd(idWidth)}${required ? "" : "(optional) "}${holds}`,
    ...(why === "" ? [] : [`${" ".repeat(8 + idWidth)}-> ${why}`])
  ].join("\n")

/** What follows the checks: each failed one with all its exchanges, and the number of each result. */
export const conformanceSummary = ({ checked, conforms, seed }: Conformance): string => {
  const broken = checked.filter(({ standing }) => standing === "broken")
  const count = (standing: Checked["standing"]) => checked.filter((each) => each.standing === standing).length
  return [
    "",
    ...broken.flatMap((each) => [
      `--- ${each.id}: ${each.why}`,
      "",
      ...each.exchanges.flatMap((exchange) => [exchangeText(exchange), ""])
    ]),
    `${conforms ? "conforms" : "does not conform"}: ${count("holds")} hold, ${count("broken")} broken, ${count("skipped")} skipped (seed ${seed})`
  ].join("\n")
}

/** The width of the longest name, and two spaces. */
const idWidth = Math.max(...[handshake, ...checks].map(({ id }) => id.length)) + 2

/** JUnit's XML; a failed optional check counts as skipped. */
export const conformanceJunit = ({ checked }: Conformance): string => {
  const failures = checked.filter(({ required, standing }) => required && standing === "broken").length
  const skipped = checked.filter(
    ({ required, standing }) => standing === "skipped" || (!required && standing === "broken")
  ).length
  return [
    '<?xml version="1.0" encoding="UTF-8"?>',
    `<testsuite name="portmapper conform" tests="${checked.length}" failures="${failures}" errors="0" skipped="${skipped}">`,
    ...checked.map(
      (each) => `  <testcase classname="conform" name="${xml(each.id)}">${inside(each)}</testcase>`
    ),
    "</testsuite>",
    ""
  ].join("\n")
}

const inside = ({ standing, required, why, exchanges }: Checked): string => {
  if (standing === "holds") return ""
  if (standing === "skipped") return `<skipped message="${xml(why)}"/>`
  return required
    ? `<failure message="${xml(why)}">${xml(exchanges.map(exchangeText).join("\n\n"))}</failure>`
    : `<skipped message="${xml(`optional, and does not hold: ${why}`)}"/>`
}

/** Characters that XML 1.0 can't contain are replaced by U+FFFD. */
const xml = (text: string): string =>
  text
    .toWellFormed()
    // biome-ignore lint/suspicious/noControlCharactersInRegex: the regex looks for control characters.
    .replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g, "\ufffd")
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;")
