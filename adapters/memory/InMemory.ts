/**
 * The protocol's calls in process: the same operations as over a wire, without one. Messages go as plain values or as JSON
 * text; errors stay typed. What runs here is deterministic on the in-memory services, under `TestClock` too.
 *
 * The answer is delivered when the effect succeeds. `CurrentOwner` names the owner, as everywhere.
 */
import { Effect } from "effect"
import type { Driver } from "../../src/protocol/Driver.ts"
import type {
  ActivateResponse,
  Encoded,
  Given,
  ListPortsResponse,
  MapPortsRequest,
  MapPortsResponse,
  UnmapPortsRequest,
  UnmapPortsResponse
} from "../../src/protocol/Messages.ts"
import {
  type Answer,
  type CallError,
  call as callMethod,
  type Method,
  textBody,
  valueBody
} from "../../src/protocol/Operations.ts"

/** One call with its request as a value, of whatever shape: what is wrong with it is answered, as over a wire. */
export const call = (method: Method, value: unknown): Effect.Effect<Answer, CallError, Driver> =>
  Effect.scoped(callMethod(method, valueBody(value)))

/** One call with its request as JSON text; answers JSON text. */
export const callText = (method: Method, text: string): Effect.Effect<string, CallError, Driver> =>
  Effect.map(Effect.scoped(callMethod(method, textBody(text))), (answer) => JSON.stringify(answer))

export const activate = call("Plugin.Activate", {}) as Call<Encoded<typeof ActivateResponse>>

export const mapPorts = (request: Given<typeof MapPortsRequest>) =>
  call("PortMapper.MapPorts", request) as Call<Encoded<typeof MapPortsResponse>>

export const unmapPorts = (request: Given<typeof UnmapPortsRequest>) =>
  call("PortMapper.UnmapPorts", request) as Call<Encoded<typeof UnmapPortsResponse>>

export const listPorts = call("PortMapper.ListPorts", {}) as Call<Encoded<typeof ListPortsResponse>>

export type Call<A> = Effect.Effect<A, CallError, Driver>
