/**
 * The host's sockets to a process that ends with its call. What is restored of earlier calls nobody holds, and it would be
 * held for a moment only: it is taken as it is, also where someone else listens on such a port by now, whose packets the
 * kernel's table redirects all the same. A port that is asked for now is bound, which tells whether it is free.
 */
import { Effect, Layer } from "effect"
import { HostSockets } from "../../src/ports/HostSockets.ts"
import * as LinuxSockets from "./LinuxSockets.ts"

/** `isRestored` tells, at each call, whether the restore is over. */
export const layer = (isRestored: () => boolean): Layer.Layer<HostSockets> =>
  Layer.effect(
    HostSockets,
    Effect.map(HostSockets, (sockets) =>
      HostSockets.of({
        ...sockets,
        open: (protocol, host, port) =>
          Effect.suspend(() =>
            isRestored()
              ? sockets.open(protocol, host, port)
              : Effect.succeed({ protocol, host, port, fd: noDescriptor })
          )
      })
    )
  ).pipe(Layer.provide(LinuxSockets.layer()))

/** Not one that was opened, so that it is never closed, nor let anything in. */
const noDescriptor = -1
