/**
 * A run as data: what callers, the Engine and the host do, one step after the other. A step that speaks of an earlier
 * answer does so by number, counted round, so that any subset of a script is a script.
 */
import type { Elsewhere, Fate, Refusable, WireReq } from "./Target.ts"

export type Step =
  | {
      readonly do: "map"
      readonly reqs: ReadonlyArray<WireReq>
      readonly labels: Readonly<Record<string, string>>
      readonly owner: string
      readonly fate: Fate
    }
  /** The `of`th group that was granted is asked for again, with the port that it got. */
  | { readonly do: "remap"; readonly of: number; readonly fate: Fate }
  /** The `of`th group granted is unmapped: all of it at once, or one entry. */
  | { readonly do: "unmap"; readonly of: number; readonly entry: number | "all"; readonly fate: Fate }
  /** Something is unmapped that perhaps was never mapped. */
  | { readonly do: "unmapOther"; readonly req: WireReq }
  /** The `of`th group granted is unmapped as if it led to another backend, or whichever it leads to. */
  | { readonly do: "unmapAs"; readonly of: number; readonly backend: "another" | "any" }
  /** A request that means nothing. */
  | {
      readonly do: "wrong"
      readonly method: "PortMapper.MapPorts" | "PortMapper.UnmapPorts"
      readonly value: unknown
    }
  | { readonly do: "activate" }
  /** An Engine starts and asks again for all that it was granted and has not unmapped. */
  | { readonly do: "engineStart" }
  /** An Engine starts that knows nothing of what there is, maps something of its own, and a minute goes by. */
  | { readonly do: "otherEngine" }
  /** The plugin's process dies and another one begins; someone else may take a port meanwhile. */
  | { readonly do: "restart"; readonly meanwhile: Elsewhere | undefined }
  | { readonly do: "take"; readonly frontend: Elsewhere }
  /** The `of`th port taken by others is freed. */
  | { readonly do: "free"; readonly of: number }
  | { readonly do: "refuse"; readonly service: Refusable; readonly on: boolean }
  | { readonly do: "wait"; readonly seconds: number }

export type Script = ReadonlyArray<Step>
