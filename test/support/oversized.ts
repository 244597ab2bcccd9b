/**
 * Requests of at most 1 MiB that ask for far more than any caller needs, and the expected result: refused with the
 * field, the value and the rule, or granted, in a time proportional to the size.
 */
import { maxBodyBytes } from "../../adapters/docker/Routes.ts"
import { wireEntry } from "./requests.ts"

export interface Oversized {
  readonly title: string
  readonly method: "MapPorts" | "MapGroups" | "UnmapPorts" | "FollowContainer"
  readonly body: string
  /** The beginning of the error, or `granted`. */
  readonly verdict: string
}

const entry = wireEntry("tcp 0.0.0.0:0 172.31.0.2:80")

const repeat = <A>(count: number, make: (index: number) => A): ReadonlyArray<A> =>
  Array.from({ length: count }, (_, index) => make(index))

const host = (index: number): string => `127.1.${index >> 8}.${index & 255}`

const labelled = (labels: Readonly<Record<string, string>>): string =>
  JSON.stringify({ Reqs: [entry], Labels: labels })

/** Fills a body up to the limit with as many as fit. */
const fill = (before: string, each: string, after: string): string =>
  before + repeat(Math.floor((maxBodyBytes - 200) / (each.length + 1)), () => each).join(",") + after

/** Like a container with a file in a label: an Engine sends it, and the plugin must ignore it. */
const others = Object.fromEntries(repeat(9, (index) => [`com.example.data${index}`, "x".repeat(100_000)]))

export const oversized: ReadonlyArray<Oversized> = [
  {
    title: "labels that are not ours",
    method: "MapPorts",
    body: labelled(others),
    verdict: "granted"
  },
  {
    title: "a thousand sources",
    method: "MapPorts",
    body: labelled({
      "portmapper.allow": repeat(1000, (index) => `10.0.${index >> 8}.${index & 255}`).join()
    }),
    verdict: "granted"
  },
  {
    title: "one source more",
    method: "MapPorts",
    body: labelled({ "portmapper.allow": repeat(1001, () => "10.0.0.1").join() }),
    verdict:
      'bad request: Labels["portmapper.allow"] = "10.0.0.1,10.0.0.1,10.0.0.1,10.0.0.1,10.0.0.1,10.0.0.1,10.0…: must be at most 1000 addresses or prefixes (there are 1001)'
  },
  {
    title: "labels of ours",
    method: "MapPorts",
    body: labelled({ "portmapper.allow": "10.0.0.1,".repeat(100_000) }),
    verdict: "bad request: Labels = 900016 bytes of portmapper.* labels: must be at most 16384 bytes of them"
  },
  {
    title: "Labels given many times",
    method: "MapPorts",
    body: fill("{", '"Labels":{"a":"b"}', "}"),
    verdict: "granted"
  },
  {
    title: "the entries of a group",
    method: "MapPorts",
    body: JSON.stringify({ Reqs: repeat(1001, (index) => ({ ...entry, FrontendIP: host(index) })) }),
    verdict:
      'bad request: Reqs = [{"Proto":6,"BackendIP":"172.31.0.2","BackendPort":80,"Fron…: must be at most 1000 elements'
  },
  {
    title: "groups",
    method: "MapGroups",
    body: fill('{"Groups":[', "{}", "]}"),
    verdict:
      "bad request: Groups = [{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{…: must be at most 1000 elements"
  },
  {
    title: "groups of what is no entry",
    method: "MapGroups",
    body: JSON.stringify({ Groups: repeat(500, () => ({ Reqs: repeat(1000, () => 1) })) }),
    verdict: "bad request: Groups[0].Reqs[0] = 1: must be an object"
  },
  {
    title: "groups with nothing in their entries",
    method: "MapGroups",
    body: JSON.stringify({ Groups: repeat(300, () => ({ Reqs: repeat(1000, () => ({})) })) }),
    verdict: "bad request: Groups[0].Reqs[0].Proto = 0: must be 6 (tcp), 17 (udp) or 132 (sctp); "
  },
  {
    title: "bindings",
    method: "UnmapPorts",
    body: fill('{"PortBindings":[', "1", "]}"),
    verdict:
      "bad request: PortBindings = [1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,…: must be at most 20000 elements"
  },
  {
    title: "NAT given many times",
    method: "UnmapPorts",
    body: fill(
      '{"PortBindings":[{"Proto":6,"FrontendIP":"127.0.0.1","FrontendPort":9,',
      '"NAT":{"FromPort":1}',
      "}]}"
    ),
    verdict: "granted"
  },
  {
    title: "ports of a container",
    method: "FollowContainer",
    body: JSON.stringify({ Container: "web", Publish: repeat(1000, () => "1-65535:1-65535") }),
    verdict:
      'bad request: Publish = ["1-65535:1-65535","1-65535:1-65535","1-65535:1-65535","1-6…: must be at most 65536 container ports in all (there are 65535000)'
  }
]
