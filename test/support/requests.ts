/** Requests as they stand on the wire. */

/** `tcp 0.0.0.0:8080 172.31.0.2:80`: protocol, frontend, backend; the host port may be `8000-8010` or `0`. */
export const wireEntry = (text: string) => {
  const [protocol = "", frontend = "", backend = ""] = text.split(" ")
  const [FrontendIP, port] = split(frontend)
  const [BackendIP, backendPort] = split(backend)
  const [first = "", last = first] = port.split("-")
  return {
    Proto: numbers[protocol] ?? 0,
    BackendIP,
    BackendPort: Number(backendPort),
    FrontendIP,
    FrontendPort: Number(first),
    FrontendPortEnd: Number(last)
  }
}

const numbers: Readonly<Record<string, number>> = { tcp: 6, udp: 17, sctp: 132 }

const split = (endpoint: string): readonly [string, string] => {
  const colon = endpoint.lastIndexOf(":")
  return [endpoint.slice(0, colon).replace(/^\[|\]$/g, ""), endpoint.slice(colon + 1)]
}

/** A `MapPorts` request for `-p PORT:80`. */
export const mapRequest = (port: number, fields: object = {}, backend = "172.17.0.2") => ({
  Reqs: [wireEntry(`tcp 0.0.0.0:${port} ${backend}:80`)],
  Labels: {},
  ...fields
})

/** The same for a container of a lab. */
export const labRequest = (port: number) => mapRequest(port, {}, "172.31.0.2")

export const unmapRequest = (port: number) => {
  const { FrontendPortEnd: _, ...binding } = wireEntry(`tcp 0.0.0.0:${port} 172.17.0.2:80`)
  return { PortBindings: [binding] }
}
