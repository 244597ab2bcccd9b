import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Driver } from "../../src/protocol/Driver.ts"
import { listedMapping } from "../support/mappings.ts"
import { areWrongUsage, done, failed, mapAs, mapped, served, withMemory } from "./asking.ts"

const unpublishForm = "[HOSTIP:]PORT[-END][:CONTAINERPORT[-END]][/PROTO]"

describe("unmap", () => {
  it.live("refuses what names nothing, or several things at once", () =>
    areWrongUsage([
      [
        "unmap -p 80 --to 300.1.1.1",
        'unmap: --to "300.1.1.1": not an IPv4 or IPv6 address; see: portmapper unmap --help'
      ],
      [
        "unmap",
        `unmap: name what to unmap by -p ${unpublishForm}, --all or --stale; see: portmapper unmap --help`
      ],
      ["unmap --all --stale", "unmap: give one of -p, --all and --stale; see: portmapper unmap --help"],
      ["unmap --all -p 80", "unmap: give one of -p, --all and --stale; see: portmapper unmap --help"],
      [
        "unmap -p :80",
        `unmap: -p ":80": the host port is missing; expected ${unpublishForm}; see: portmapper unmap --help`
      ]
    ])
  )

  it.live("names a port of several backends once", () =>
    withMemory(
      Effect.gen(function* () {
        const { ask } = yield* served
        for (const number of [2, 3])
          yield* ask(`map -p 0.0.0.0:8080-8081:80-81 --to 172.17.0.${number} --label portmapper.share=web`)
        yield* ask("map -p 0.0.0.0:8082:80 --to 172.17.0.2")
        assert.deepStrictEqual(
          yield* ask("unmap --all"),
          done("unmapped 0.0.0.0:8080-8081/tcp (2 backends)", "unmapped 0.0.0.0:8082/tcp")
        )
        assert.deepStrictEqual(yield* mapped, [])
      })
    )
  )

  it.live("takes back one backend of a port, and only that", () =>
    withMemory(
      Effect.gen(function* () {
        const { ask } = yield* served
        for (const number of [2, 3, 4])
          yield* ask(
            `map -p 8080-8081:80-81 --to 172.17.0.${number} --to fd00::${number} --label portmapper.share=web`
          )
        const slots = Effect.map(ask("ls --json"), ({ stdout }) =>
          (JSON.parse(stdout).Mappings as ReadonlyArray<Record<string, unknown>>).flatMap(
            ({ FrontendIP, FrontendPort, BackendIP, Service, Slots }) =>
              FrontendIP === "0.0.0.0" && FrontendPort === 8080 ? [[BackendIP, Service, Slots]] : []
          )
        )
        assert.deepStrictEqual(yield* slots, [
          ["172.17.0.2", "web", { Has: 22, Of: 64 }],
          ["172.17.0.3", "web", { Has: 21, Of: 64 }],
          ["172.17.0.4", "web", { Has: 21, Of: 64 }]
        ])
        assert.deepStrictEqual(
          yield* ask("unmap -p 8080-8081 --to 172.17.0.3"),
          done("unmapped 0.0.0.0:8080-8081/tcp -> 172.17.0.3:80-81")
        )
        assert.deepStrictEqual(yield* slots, [
          ["172.17.0.2", "web", { Has: 32, Of: 64 }],
          ["172.17.0.4", "web", { Has: 32, Of: 64 }]
        ])
        assert.deepStrictEqual(
          yield* ask("unmap -p 8080 --to 172.17.0.3 --json"),
          done('{"Unmapped":[],"NotMapped":["8080/tcp"]}')
        )
        assert.deepStrictEqual(
          yield* ask("unmap -p 8080 --to 172.17.0.3"),
          done("not mapped: 8080/tcp to 172.17.0.3")
        )
        assert.deepStrictEqual(
          yield* ask("unmap --all --to fd00::2"),
          done("unmapped [::]:8080-8081/tcp -> [fd00::2]:80-81")
        )
        assert.deepStrictEqual(yield* ask("unmap --all --to web"), done("nothing to unmap"))
      })
    )
  )

  it.live("leaves another owner's mappings alone unless --owner names it", () =>
    withMemory(
      Effect.gen(function* () {
        const { ask } = yield* served
        yield* mapAs("engine", "80", ["tcp 0.0.0.0 10.0.0.1:80"])
        yield* mapAs("watch", "81", ["tcp 0.0.0.0 10.0.0.1:80"])
        yield* mapAs("cli", "82", ["tcp 0.0.0.0 10.0.0.1:80"])
        assert.deepStrictEqual(
          yield* ask("unmap -p 82 -p 80"),
          failed(
            "unmapping 0.0.0.0:80/tcp failed: it belongs to engine, not to cli; to unmap it all the same add --owner engine"
          )
        )
        assert.strictEqual((yield* mapped).length, 3)
        assert.deepStrictEqual(yield* ask("unmap -p 80 --owner engine"), done("unmapped 0.0.0.0:80/tcp"))
        assert.deepStrictEqual(yield* ask("unmap --all"), done("unmapped 0.0.0.0:82/tcp"))
        assert.deepStrictEqual(yield* ask("unmap --all --owner any"), done("unmapped 0.0.0.0:81/tcp"))
      })
    )
  )

  it.live("unmaps stale mappings, and names the ports that it could not unmap", () =>
    Effect.gen(function* () {
      const { ask } = yield* served
      assert.deepStrictEqual(yield* ask("unmap --stale"), done("unmapped 0.0.0.0:81/tcp"))
      assert.deepStrictEqual(
        yield* ask("unmap --all --owner engine"),
        failed("unmapping 2 mappings failed: the kernel says no; 0 were unmapped, see: portmapper ls")
      )
    }).pipe(
      Effect.scoped,
      Effect.provideService(
        Driver,
        Driver.of({
          mapPorts: () => Effect.succeed([]),
          unmapPorts: ({ bindings }) =>
            bindings.length > 1 ? Effect.fail({ _tag: "No", message: "the kernel says no" }) : Effect.void,
          listPorts: Effect.succeed([
            listedMapping({ frontendPort: 80 }),
            listedMapping({ frontendPort: 81, state: "stale" })
          ])
        })
      )
    )
  )
})
