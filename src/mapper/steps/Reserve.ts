/** Reserves a port for new mappings. Of a range it takes none that an answered mapping in conflict is to get back. */
import { Clock, Effect } from "effect"
import type { Hold, PortError } from "../../ports/PortAllocator.ts"
import { PortSet } from "../../ports/PortTable.ts"
import type { PortRequest } from "../../protocol/PortBinding.ts"
import type { MapperContext } from "../MapperContext.ts"
import type { Creation } from "../plan/Change.ts"
import { answeredConflictsAt } from "../plan/Claims.ts"
import { reservedBy } from "./PortScope.ts"

/** The holds of those that reserve, in their order. */
export const reservePort = Effect.fnUntraced(function* (
  context: MapperContext,
  create: ReadonlyArray<Creation>,
  ports: PortRequest,
  beside: ReadonlyArray<Hold>
): Effect.fn.Return<ReadonlyArray<Hold>, PortError> {
  const { allocator, mappings } = context
  const { frontends, claimant } = reservedBy(context, create)
  const nowMillis = yield* Clock.currentTimeMillis
  const kept = (port: number) =>
    frontends.some((frontend) => answeredConflictsAt(mappings, frontend, port, nowMillis).length > 0)
  let except: ReadonlyArray<PortSet> = []
  while (true) {
    const holds = yield* allocator.reserve(frontends, ports, beside, { claimant, except })
    const [first] = holds
    if (ports._tag === "Exact" || first === undefined || !kept(first.port)) return holds
    yield* allocator.release(holds)
    except = except.length > 0 ? except : [new PortSet()]
    except[0]?.add(first.port)
  }
})
