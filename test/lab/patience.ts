/** The timeouts of tests; this file imports nothing, since the agent loads it as well. */

/** How long to wait for what must come before it counts as hanging: no machine is that slow. */
export const patienceMillis = 60_000

/** One exchange of packets, which may also end in silence when the test does not know what to expect. */
export const exchangeMillis = 10_000

/** How long to watch for what must not come. */
export const silenceMillis = 400
