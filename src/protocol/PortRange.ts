/** A range of ports, both ends included. */
import { Result } from "effect"

export interface PortRange {
  readonly first: number
  readonly last: number
}

/** The dynamic ports of RFC 6335 section 6, for a system that names no range. */
export const dynamicPorts: PortRange = { first: 49153, last: 65535 }

/** `8000-8010`, or a single port; ports are 1–65535. The failure is the broken rule. */
export const parsePortRange = (text: string): Result.Result<PortRange, string> => {
  const match = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(text)
  if (match === null) return Result.fail("expected PORT or FIRST-LAST")
  const first = Number(match[1])
  const last = match[2] === undefined ? first : Number(match[2])
  if (first < 1 || last > 65535 || first > 65535) return Result.fail("ports are 1 to 65535")
  if (last < first) return Result.fail("the range ends before it starts")
  return Result.succeed({ first, last })
}

export const rangeText = ({ first, last }: PortRange): string =>
  first === last ? `${first}` : `${first}-${last}`
