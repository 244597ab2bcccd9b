/**
 * A failure in CNI's form: a code, a short message and details, as JSON on stdout. Codes below 100 are the
 * specification's (https://www.cni.dev/docs/spec/#error), the others ours.
 */

export const codes = {
  incompatibleVersion: 1,
  unsupportedField: 2,
  environment: 4,
  io: 5,
  decoding: 6,
  config: 7,
  /** A retry may work: the plugin is stopping, or another process has the state. */
  tryAgain: 11,
  /** `STATUS`: no `ADD` would succeed. */
  unavailable: 50,
  /** The port mapper refused: a port is taken, a mode is not available. */
  refused: 100,
  /** `CHECK`: what `ADD` published is gone. */
  missing: 101,
  internal: 999
} as const

export class CniError extends Error {
  readonly code: number
  readonly details: string

  constructor(code: number, message: string, details = "") {
    super(message)
    this.code = code
    this.details = details
  }
}

export const errorText = ({ code, message, details }: CniError, version: string): string =>
  JSON.stringify({ cniVersion: version, code, msg: message, ...(details === "" ? {} : { details }) })

/** A defect is reported like a failure: stdout must contain JSON in every case. */
export const cniErrorOf = (cause: unknown): CniError =>
  cause instanceof CniError
    ? cause
    : new CniError(codes.internal, "internal error", cause instanceof Error ? cause.message : String(cause))
