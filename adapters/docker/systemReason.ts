/** Why a system call failed, in the C library's words, without the call and the path that Node puts around them. */
import { getSystemErrorMessage } from "node:util"

export const systemReason = (error: unknown): string => {
  if (!(error instanceof Error)) return String(error)
  return "errno" in error && typeof error.errno === "number" && error.errno < 0
    ? (getSystemErrorMessage(error.errno) ?? error.message)
    : error.message
}
