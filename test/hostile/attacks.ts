/** Every attack that the suite replays, in the order of its kinds. */
import type { Attack } from "./Attack.ts"
import * as Input from "./input.ts"
import * as Lock from "./lock.ts"
import * as Packets from "./packets.ts"
import * as Relay from "./relay.ts"

export interface KnownAttack {
  /** The name that selects it; names of one kind share a prefix. */
  readonly name: string
  readonly attack: string
  /** What must hold. */
  readonly holds: string
  /** Notes are printed after the result. */
  readonly run: (note: (text: string) => void) => Attack
  /** Whether the short form runs it, too. */
  readonly isShort: boolean
}

const known = (
  name: string,
  attack: string,
  holds: string,
  run: KnownAttack["run"],
  isShort = false
): KnownAttack => ({ name, attack, holds, run, isShort })

const floodOf = (limit: number | undefined, connections: number, isShort = false): KnownAttack =>
  known(
    `flood-${limit ?? "own"}`,
    `${connections} idle TCP connections and 6,000 UDP sources under ${limit ?? "the machine's own"} descriptors`,
    "MapPorts and a third relayed port are answered, and the descriptors are free again afterwards",
    (note) => Relay.floodRelay({ limit, connections, sources: 6000 }, note),
    isShort
  )

export const attacks: ReadonlyArray<KnownAttack> = [
  known(
    "lock-squat",
    "users who may not change the table take its lock first",
    "root's plugin serves and redirects",
    () => Lock.squatLock,
    true
  ),
  known(
    "lock-race",
    "another user and another plugin race for the lock in takeovers",
    "the successor has the lock",
    () => Lock.raceTakeover
  ),
  known(
    "lock-flush",
    "nft flush ruleset, nft delete table",
    "published ports stay published",
    () => Lock.flushRuleset
  ),
  known(
    "lock-reset",
    "reset with another state and socket",
    "reset refuses, and names the process that serves",
    () => Lock.resetLive
  ),
  floodOf(512, 700, true),
  floodOf(1024, 1300),
  floodOf(undefined, 10_300),
  known(
    "flood-control",
    "600 idle connections to the plugin's own TCP port under 512 descriptors",
    "MapPorts is answered on the socket, and the port answers again afterwards",
    () => Relay.floodOwnPort,
    true
  ),
  known(
    "loop",
    "mappings that lead to themselves, alone and in a circle",
    "they are refused, or end at their first connection",
    () => Relay.mapToItself,
    true
  ),
  known(
    "oversized",
    "requests that ask for far more than any caller needs",
    "each is refused with its field or granted, and other clients are answered",
    Input.askTooMuch,
    true
  ),
  known(
    "unread",
    "a client requests 700 lists and reads none",
    "other clients are answered, and the plugin's memory does not grow",
    Input.readNothing
  ),
  known(
    "batch",
    "a batch of half a million numbers",
    "the answer is one short error",
    () => Input.sendWideBatch
  ),
  known(
    "takeover-freeze",
    "a successor freezes in the middle",
    "MapPorts is answered before an Engine gives up",
    Lock.freezeSuccessor
  ),
  known(
    "own-port",
    "neighbours and containers connect to the plugin's own loopback port",
    "no connection gets there",
    () => Packets.knockAtOwnPort,
    true
  ),
  known(
    "narrowed",
    "clients keep sending after the allow-list was narrowed",
    "their flows end",
    () => Packets.outliveNarrowing,
    true
  ),
  known(
    "broadcast",
    "datagrams to broadcast and multicast addresses",
    "none reaches a container",
    () => Packets.shoutAtRelay,
    true
  ),
  known(
    "folder",
    "another user has made the runtime folder",
    "the plugin refuses to start, and names the folder",
    () => Input.prepareFolder
  ),
  known(
    "http",
    "HTTP requests and Host headers that parsers read differently",
    "each gets the same status on every listener",
    () => Input.askInDisguise,
    true
  ),
  known(
    "mark",
    "packets with our mark, redirected by a rule of another program",
    "they are not masqueraded, and keep their mark",
    () => Packets.borrowMark,
    true
  )
]
