/**
 * A run as data: what callers, the Engine and the host do, one step after the other. A step refers to an earlier
 * answer by number, modulo how many there are, so that any subset of a script is a script.
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
  /** The `of`th granted group is requested again, with the port that it got. */
  | { readonly do: "remap"; readonly of: number; readonly fate: Fate }
  /** The `of`th granted group is unmapped: all of it at once, or one entry. */
  | { readonly do: "unmap"; readonly of: number; readonly entry: number | "all"; readonly fate: Fate }
  /** Something is unmapped that may never have been mapped. */
  | { readonly do: "unmapOther"; readonly req: WireReq }
  /** The `of`th granted group is unmapped with another backend, or with none. */
  | { readonly do: "unmapAs"; readonly of: number; readonly backend: "another" | "any" }
  /** A backend's traffic is taken away, on all of its ports or on these of TCP, or given back. */
  | {
      readonly do: "drain"
      readonly backend: string
      readonly ports: ReadonlyArray<string>
      readonly drained: boolean
      readonly fate: Fate
    }
  /** An invalid request. */
  | {
      readonly do: "wrong"
      readonly method: "PortMapper.MapPorts" | "PortMapper.UnmapPorts"
      readonly value: unknown
    }
  | { readonly do: "activate" }
  /** An Engine starts and requests again all that it was granted and has not unmapped. */
  | { readonly do: "engineStart" }
  /** An Engine starts that knows no mappings, maps a port of its own, and a minute passes. */
  | { readonly do: "otherEngine" }
  /** The plugin's process dies and another one starts; another process may take a port meanwhile. */
  | { readonly do: "restart"; readonly meanwhile: Elsewhere | undefined }
  | { readonly do: "take"; readonly frontend: Elsewhere }
  /** The `of`th port taken by other processes is freed. */
  | { readonly do: "free"; readonly of: number }
  | { readonly do: "refuse"; readonly service: Refusable; readonly on: boolean }
  | { readonly do: "wait"; readonly seconds: number }

export type Script = ReadonlyArray<Step>
