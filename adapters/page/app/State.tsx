/** A state as a coloured dot and its word; the word says it to who sees no colours. */
import type { Row } from "./model.ts"
import { Said } from "./Text.tsx"

export const State = ({ row: { state, problem } }: { readonly row: Row }) => (
  <span class="dot" data-state={problem?.severity ?? (state === "live" ? "ok" : "warning")}>
    <Said text={state} />
  </span>
)
