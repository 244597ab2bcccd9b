/** The present, by the plugin's clock, second by second. */
import { computed, type ReadonlySignal, signal } from "@preact/signals"
import { ahead } from "./connection.ts"

const here = signal(Date.now())

setInterval(() => {
  here.value = Date.now()
}, 1000)

/** By this browser's clock. */
export const hereMillis: ReadonlySignal<number> = here

export const nowMillis: ReadonlySignal<number> = computed(() => here.value + ahead.value)
