/** The limits of a published port, and the reasons for which it refuses a client. */

/** For new connections, and new flows of UDP. A rate is a number per second, and no burst is larger than it. */
export interface Limits {
  /** How many may be open at once. */
  readonly connections: number | undefined
  /** How many may begin in a second. */
  readonly rate: number | undefined
  /** How many may begin in a second from one address. */
  readonly ratePerSource: number | undefined
}

export const noLimits: Limits = { connections: undefined, rate: undefined, ratePerSource: undefined }

/** By the labels that refuse. */
export const refusalReasons = ["allow", "connections", "rate", "rate-per-source"] as const
export type RefusalReason = (typeof refusalReasons)[number]

/** How many clients were refused, by reason. */
export type Refused = Readonly<Record<RefusalReason, number>>

export const noneRefused: Refused = { allow: 0, connections: 0, rate: 0, "rate-per-source": 0 }

/** ` at most 100 open, 20/s, 5/s from one source`, or nothing. */
export const limitsText = ({ connections, rate, ratePerSource }: Limits = noLimits): string => {
  const parts = [
    connections === undefined ? [] : `${connections} open`,
    rate === undefined ? [] : `${rate}/s`,
    ratePerSource === undefined ? [] : `${ratePerSource}/s from one source`
  ].flat()
  return parts.length === 0 ? "" : ` at most ${parts.join(", ")}`
}
