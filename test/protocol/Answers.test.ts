import { assert, describe, it } from "@effect/vitest"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import { fullRangeResponse, listPortsResponse, mapPortsResponse } from "../../src/protocol/Answers.ts"
import type { PortBinding } from "../../src/protocol/PortBinding.ts"
import { entry } from "../support/groups.ts"
import { listedMapping } from "../support/mappings.ts"

const binding = (text: string, more: Partial<PortBinding> = {}): PortBinding => ({
  ...{ entry: entry(text), port: 8080, discarded: undefined, allowForwarding: false, nat: undefined },
  ...more
})

describe("the answer to MapPorts", () => {
  it("has each binding in Go's field order, with its frontend as the request wrote it", () =>
    assert.strictEqual(
      JSON.stringify(
        mapPortsResponse([
          binding("tcp - 172.17.0.2:80", { allowForwarding: true }),
          binding("udp ::ffff:10.0.0.1 ::ffff:10.0.0.2:80")
        ])
      ),
      '{"PortBindings":[{"Proto":6,"BackendIP":"172.17.0.2","BackendPort":80,"FrontendIP":"","FrontendPort":8080,' +
        '"DiscardReq":false,"AllowForwarding":true,"NAT":null,"Error":null},' +
        '{"Proto":17,"BackendIP":"::ffff:10.0.0.2","BackendPort":80,"FrontendIP":"::ffff:10.0.0.1","FrontendPort":8080,' +
        '"DiscardReq":false,"AllowForwarding":false,"NAT":null,"Error":null}],"Err":""}'
    ))

  it("says why a binding is discarded, and what the Engine is to redirect", () => {
    const web = "tcp 0.0.0.0 172.17.0.2:80"
    const redirect = (address: string | undefined) => ({
      nat: { address: address === undefined ? undefined : addressUnsafe(address), port: 40001 }
    })
    const { PortBindings } = mapPortsResponse([
      binding(web, { discarded: "" }),
      binding(web, redirect("::ffff:10.0.0.1")),
      binding(web, redirect(undefined))
    ])
    assert.deepStrictEqual(
      PortBindings?.map(({ DiscardReq, Error, NAT }) => [DiscardReq, Error, NAT]),
      [
        [true, "", null],
        [false, null, { FromAddr: "::ffff:10.0.0.1", FromPort: 40001 }],
        [false, null, { FromAddr: "", FromPort: 40001 }]
      ]
    )
  })

  it("names a full range by its ends", () => {
    const bindings = [binding("tcp - 172.17.0.2:80")]
    assert.deepStrictEqual(
      fullRangeResponse(bindings, { first: 8080, last: 8090 }),
      JSON.parse(
        JSON.stringify(mapPortsResponse(bindings)).replace("}]", ',"FrontendPortEnd":8090,"FullRange":true}]')
      )
    )
  })
})

describe("the answer to ListPorts", () => {
  it("has null for what is not counted, and an empty text for what is not known", () =>
    assert.strictEqual(
      JSON.stringify(
        listPortsResponse([
          listedMapping({
            ...{ protocol: 17, frontendIp: "::", frontendPort: 53, backendPort: 5353 },
            ...{ sinceMillis: Date.UTC(2026, 0, 2, 3, 4, 5, 6), labels: new Map([["__proto__", "x"]]) },
            ...{ connections: 0, bytesOut: 7, refused: { allow: 3, "rate-per-source": 0 } }
          })
        ])
      ),
      '{"Mappings":[{"Proto":17,"FrontendIP":"::","FrontendPort":53,"BackendIP":"172.17.0.2","BackendPort":5353,' +
        '"Mode":"nat","Owner":"engine","State":"live","Since":"2026-01-02T03:04:05.006Z","Labels":{"__proto__":"x"},' +
        '"Connections":0,"BytesIn":null,"BytesOut":7,"Service":"",' +
        '"Refused":{"Allow":3,"Connections":null,"Rate":null,"RatePerSource":0},"Slots":null,"Open":null,"Container":"","Reason":"","Host":"","HostAddress":""}]}'
    ))

  it("has null for the refusals of a mapping that can refuse nothing", () =>
    assert.deepStrictEqual(
      listPortsResponse([listedMapping(), listedMapping({ refused: {} })]).Mappings?.map(
        ({ Refused }) => Refused
      ),
      [null, null]
    ))
})
