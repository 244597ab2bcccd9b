/**
 * The protocol's calls in process: the same operations as over a wire. Messages are plain values or JSON text; errors
 * stay typed. Calls are deterministic on the in-memory services, under `TestClock` too.
 *
 * The answer is delivered when the effect succeeds. `CurrentOwner` names the owner.
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

/** Runs one call with its request as a value of any shape: an invalid one fails, as over a wire. */
export const call = (method: Method, value: unknown): Effect.Effect<Answer, CallError, Driver> =>
  Effect.scoped(callMethod(method, valueBody(value)))

/** Runs one call with its request as JSON text; returns JSON text. */
export const callText = (method: Method, text: string): Effect.Effect<string, CallError, Driver> =>
  Effect.map(Effect.scoped(callMethod(method, textBody(text))), (answer) => JSON.stringify(answer))

export const activate = call("Plugin.Activate", {}) as Call<Encoded<typeof ActivateResponse>>

export const mapPorts = (request: Given<typeof MapPortsRequest>) =>
  call("PortMapper.MapPorts", request) as Call<Encoded<typeof MapPortsResponse>>

export const unmapPorts = (request: Given<typeof UnmapPortsRequest>) =>
  call("PortMapper.UnmapPorts", request) as Call<Encoded<typeof UnmapPortsResponse>>

export const listPorts = call("PortMapper.ListPorts", {}) as Call<Encoded<typeof ListPortsResponse>>

export type Call<A> = Effect.Effect<A, CallError, Driver>
