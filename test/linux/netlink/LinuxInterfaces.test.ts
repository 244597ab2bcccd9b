import { assert, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import * as LinuxInterfaces from "../../../adapters/linux/netlink/LinuxInterfaces.ts"
import { InterfaceAddresses, type Interfaces } from "../../../src/ports/InterfaceAddresses.ts"
import { describeInNamespace, ip, run } from "../../lab/ThreadNamespace.ts"
import { interfaceAddressesConformance } from "../../ports/interfaceAddressesConformance.ts"

const prefix = (address: string) => (address.includes(":") ? `${address}/64 nodad` : `${address}/24`)

/** Replaces the addresses. Without duplicate address detection an IPv6 address is there at once. */
const add = (name: string, addresses: ReadonlyArray<string>) =>
  Effect.sync(() => {
    if (!ip("-brief link").includes(`${name} `)) ip(`link add ${name} type bridge`)
    ip(`link set ${name} up`)
    for (const address of addresses) ip(`address replace ${prefix(address)} dev ${name}`)
  })

const addressesOf = (interfaces: Interfaces, name: string) => interfaces.get(name)?.map(({ text }) => text)

describeInNamespace("the interfaces of Linux", () => {
  interfaceAddressesConformance("InterfaceAddresses by netlink", LinuxInterfaces.layer, {
    add,
    remove: (name) => Effect.sync(() => void ip(`link delete ${name}`))
  })

  const test = (title: string, body: Effect.Effect<void, unknown, InterfaceAddresses>) =>
    it.live(title, () => Effect.provide(body, LinuxInterfaces.layer))

  test(
    "leaves out link-local, temporary and tentative addresses, and keeps deprecated ones",
    Effect.gen(function* () {
      const { current } = yield* InterfaceAddresses
      ip("link add name veth0 type veth peer name veth1")
      ip("link set veth1 up")
      ip("link set veth0 up")
      // Nobody answers: the kernel takes a second to be sure of the address.
      ip("address add fd80::1/64 dev veth0")
      ip("address add fd80::2/64 dev veth0 nodad preferred_lft 0")
      ip("address add 169.254.7.7/16 dev veth0")
      // The kernel makes a temporary address beside this one.
      run("sysctl -qw net.ipv6.conf.veth0.use_tempaddr=2")
      ip("address add fd80:1::1/64 dev veth0 mngtmpaddr nodad")
      assert.include(ip("-6 address show dev veth0"), " temporary ")
      assert.deepStrictEqual(addressesOf(yield* current, "veth0"), ["169.254.7.7", "fd80:1::1", "fd80::2"])
    })
  )

  test(
    "reports an address once it is not tentative any more, and the new name of an interface",
    Effect.gen(function* () {
      const { changes } = yield* InterfaceAddresses
      ip("link set veth1 down")
      ip("link set veth1 name peer1")
      const seen = yield* Stream.runCollect(
        changes.pipe(
          Stream.takeUntil((interfaces) => {
            if (addressesOf(interfaces, "veth0")?.includes("fd80::1") !== true) return false
            ip("link set veth0 down")
            ip("link set veth0 name renamed0")
            return false
          }),
          Stream.takeUntil((interfaces) => interfaces.has("renamed0"))
        )
      )
      const last = seen.at(-1)
      assert.isUndefined(last?.get("veth0"))
      assert.deepStrictEqual(addressesOf(last ?? new Map(), "renamed0"), ["169.254.7.7"])
    })
  )

  test(
    "returns the host's own side of a link between two points",
    Effect.gen(function* () {
      ip("link add wg7 type bridge")
      ip("address add 10.81.0.1 peer 10.81.0.2 dev wg7")
      ip("address add fd81::1 peer fd81::2 dev wg7 nodad")
      const { current } = yield* InterfaceAddresses
      assert.deepStrictEqual(addressesOf(yield* current, "wg7"), ["10.81.0.1", "fd81::1"])
      assert.deepStrictEqual(addressesOf(yield* current, "lo"), ["127.0.0.1", "::1"])
    })
  )
})
