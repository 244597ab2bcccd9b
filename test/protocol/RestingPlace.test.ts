import { assert, it } from "@effect/vitest"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import { hasAddress } from "../../src/protocol/ListedText.ts"
import { isRestingPlace, restingPlace } from "../../src/protocol/RestingPlace.ts"

it.each(["0123456789abcdef", "0000000000000000", "0000000000000001", "a000000000000000"])(
  "the container %s has no address while it is asleep",
  (id) => {
    const place = restingPlace(id.repeat(4))
    assert.isTrue(isRestingPlace(place))
    assert.isFalse(hasAddress({ backendIp: place.text, state: "drained" }))
  }
)

it.each(["100::1:2:3:4:5", "100:0:0:1::", "::", "1.0.0.0", "172.17.0.2"])("%s is an address", (text) => {
  const { text: backendIp } = addressUnsafe(text)
  assert.isFalse(isRestingPlace(addressUnsafe(text)))
  assert.isTrue(hasAddress({ backendIp, state: "drained" }))
})
