/** How long tests wait; a leaf, which the agent loads as well. */

/** What must come is waited for this long before it counts as hanging: no machine is that slow. */
export const patienceMillis = 60_000

/** One exchange of packets, which may also have to be found silent by a test that does not know what to expect. */
export const exchangeMillis = 10_000

/** What must not come has this long to do so. */
export const silenceMillis = 400
