/**
 * What this host knows of the cluster, from its watch and its own requests. It may lag: a claim that is decided on it is
 * compared with the cell's revision in the store, and a refusal is decided on a cell that was read anew.
 */
import type { CellState, ClusterEvent, ClusterHost, HeldClaim } from "./ClusterState.ts"

interface Cell {
  revision: number
  /** Changes up to here are in it. */
  readAt: number
  readonly claims: Map<string, HeldClaim>
}

export class Replica {
  readonly #cells = new Map<string, Cell>()
  readonly #hosts = new Map<string, ClusterHost>()
  #revision = 0

  /** Every change up to here has been seen. */
  get revision(): number {
    return this.#revision
  }

  cell(name: string): CellState {
    const cell = this.#cells.get(name)
    return cell === undefined
      ? { cell: name, revision: 0, readAt: 0, claims: [] }
      : { cell: name, revision: cell.revision, readAt: cell.readAt, claims: [...cell.claims.values()] }
  }

  /** Whether anybody has claimed anything in it. */
  isEmpty(name: string): boolean {
    return (this.#cells.get(name)?.claims.size ?? 0) === 0
  }

  *claims(): IterableIterator<HeldClaim> {
    for (const { claims } of this.#cells.values()) yield* claims.values()
  }

  hosts(): ReadonlyArray<ClusterHost> {
    return [...this.#hosts.values()]
  }

  /** A cell that was read by another way than the watch. */
  put({ cell, revision, readAt, claims }: CellState): void {
    if (readAt < (this.#cells.get(cell)?.readAt ?? 0)) return
    this.#cells.set(cell, { revision, readAt, claims: new Map(claims.map((each) => [each.name, each])) })
  }

  apply(event: ClusterEvent): void {
    if (event._tag === "Interrupted") return
    this.#revision = event.revision
    if (event._tag === "Snapshot") {
      this.#cells.clear()
      this.#hosts.clear()
      for (const host of event.hosts) this.#hosts.set(host.host, host)
      for (const cell of event.cells) this.put({ ...cell, readAt: event.revision })
      return
    }
    const changed = new Set<Cell>()
    for (const change of event.changes) {
      if (change._tag === "HostCame") this.#hosts.set(change.host.host, change.host)
      else if (change._tag === "HostLeft") this.#hosts.delete(change.host)
      else {
        const name = change._tag === "CellMoved" ? change.cell : change.claim.cell
        const cell = this.#cellAt(name)
        // A request's answer had it already.
        if (change.revision <= cell.readAt) continue
        changed.add(cell)
        if (change._tag === "Claimed") cell.claims.set(change.claim.name, change.claim)
        else if (change._tag === "Released") cell.claims.delete(change.claim.name)
        else cell.revision = change.revision
      }
    }
    for (const cell of changed) cell.readAt = event.revision
  }

  #cellAt(name: string): Cell {
    const there = this.#cells.get(name)
    if (there !== undefined) return there
    const cell: Cell = { revision: 0, readAt: 0, claims: new Map() }
    this.#cells.set(name, cell)
    return cell
  }
}
