/**
 * `npm run bench -- NAME`: the figures that the project promises, each measured beside its own yardstick in one
 * run, so that a busy machine slows both. Benchmarks that need root or nftables say so.
 */
const benchmarks: Record<string, () => Promise<{ readonly run: () => Promise<void> }>> = {
  map: () => import("./map.ts"),
  page: () => import("./page.ts"),
  transports: () => import("./transports.ts"),
  relay: () => import("./relay.ts"),
  "relay-udp": () => import("./relayUdp.ts"),
  redirect: () => import("./redirect.ts"),
  services: () => import("./services.ts"),
  restore: () => import("./restore.ts"),
  cni: () => import("./cni.ts"),
  docker: () => import("./docker.ts"),
  sleep: () => import("./sleep.ts"),
  cluster: () => import("./cluster.ts")
}

const [name = ""] = process.argv.slice(2)
const load = Object.hasOwn(benchmarks, name) ? benchmarks[name] : undefined
if (load === undefined) {
  process.stderr.write(`bench: expected one of ${Object.keys(benchmarks).join(", ")}\n`)
  process.exit(2)
}
const { run } = await load()
try {
  await run()
} catch (error) {
  process.stderr.write(`bench ${name}: ${error instanceof Error ? error.message : String(error)}\n`)
  process.exit(1)
}

export {}
