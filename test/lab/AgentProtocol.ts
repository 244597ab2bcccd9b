/**
 * The messages between `Agent.ts` and `agent-process.ts`: JSON lines, requests with ids one way and answers the other.
 * Only types, erased when either runs.
 */

export interface Endpoint {
  readonly address: string
  readonly port: number
}

export type Protocol = "tcp" | "udp"

export interface EchoRequest {
  readonly protocol: Protocol
  /** Default `0.0.0.0`. An IPv6 address binds for IPv6 alone unless `dual`. */
  readonly host?: string
  /** 0, the default, lets the system choose. */
  readonly port?: number
  /** The name in the echo. Default: the namespace's role. */
  readonly who?: string
  readonly dual?: boolean
}

/** Holds a port and answers nothing: TCP accepts and stays silent. */
export interface HoldRequest {
  readonly protocol: Protocol
  readonly host?: string
  readonly port: number
  readonly dual?: boolean
}

export interface TcpRequest {
  readonly host: string
  readonly port: number
  readonly payload?: string
  readonly sourceAddress?: string
  readonly sourcePort?: number
  /** For the whole exchange. Default `exchangeMillis`; `silenceMillis` where the test expects no answer. */
  readonly timeoutMillis?: number
  /**
   * How the connection ends after the answer. `reset` leaves no TIME_WAIT, so that the same source port is free
   * again.
   */
  readonly close?: "fin" | "reset"
}

/**
 * `answered`: a line came back. `refused`: a reset, or an ICMP port unreachable, before the handshake. `reset`:
 * after it. `closed`: the other side ended the connection without sending. `timeout`: silence; `connected` says
 * whether there was a handshake. `unreachable`: no route, or an ICMP unreachable of another kind.
 */
export type TcpOutcome = "answered" | "refused" | "reset" | "closed" | "timeout" | "unreachable"

export interface Answer {
  /** The whole line, or datagram. */
  readonly text: string
  /** The parts of an echo's answer: the server's name, the source it saw, the payload it received. */
  readonly who?: string
  readonly seen?: Endpoint
  readonly payload?: string
}

export interface TcpResult {
  readonly outcome: TcpOutcome
  readonly connected: boolean
  readonly answer?: Answer
  readonly local?: Endpoint
  readonly millis: number
  /** The system's name for what happened, such as `EHOSTUNREACH`. */
  readonly code?: string
}

export interface UdpRequest {
  readonly host: string
  readonly port: number
  readonly payload?: string
  readonly sourceAddress?: string
  readonly sourcePort?: number
  /** How often to send and await an answer, one after the other, from one socket. Default 1. */
  readonly rounds?: number
  /** For each round. Default `exchangeMillis`; `silenceMillis` where the test expects no answer. */
  readonly timeoutMillis?: number
  /** Accepts answers from any source, may broadcast, and reports no ICMP error. Default false. */
  readonly unconnected?: boolean
}

export interface UdpReply extends Answer {
  readonly from: Endpoint
}

export interface UdpResult {
  /** Of the last round. */
  readonly outcome: "answered" | "refused" | "timeout" | "unreachable"
  /** One for each answered round. */
  readonly replies: ReadonlyArray<UdpReply>
  readonly local?: Endpoint
  readonly code?: string
}

export interface TransferRequest {
  readonly host: string
  readonly port: number
  readonly sourceAddress?: string
  readonly sourcePort?: number
  /** Bytes of one round: a line that is sent, echoed, and compared. Default 64. */
  readonly chunkBytes?: number
  /** Milliseconds from an answer to the next line. Default 10. */
  readonly intervalMillis?: number
  /** Milliseconds for the handshake. Default `exchangeMillis`. */
  readonly timeoutMillis?: number
}

export interface TransferProgress {
  /** `failed` after a reset or a wrong echo, `closed` after the other side's end. */
  readonly state: "open" | "closed" | "failed"
  /** Lines that came back unchanged. */
  readonly rounds: number
  readonly bytes: number
  /** The first answer, which names the server. */
  readonly first?: Answer
  readonly code?: string
}

export interface Opened {
  readonly handle: number
  readonly local: Endpoint
}

/** Operation to its request and answer. */
export interface Operations {
  readonly ping: [Record<string, never>, { readonly pid: number }]
  readonly echo: [EchoRequest, Opened]
  readonly hold: [HoldRequest, Opened]
  readonly tcp: [TcpRequest, TcpResult]
  readonly udp: [UdpRequest, UdpResult]
  readonly transfer: [TransferRequest, Opened]
  readonly progress: [{ readonly handle: number }, TransferProgress]
  readonly stop: [{ readonly handle: number }, Record<string, never>]
}

export interface AgentAnswer {
  readonly id: number
  readonly ok?: unknown
  readonly code?: string
  readonly detail?: string
}
