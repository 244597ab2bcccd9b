/** How long tests wait; a leaf, which the agent loads as well. */

/** What must come is waited for this long before it counts as hanging: no machine is that slow. */
export const patienceMillis = 60_000

/** What must not come has this long to do so. */
export const silenceMillis = 400
