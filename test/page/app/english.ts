/** A reader who reads English and lives by UTC, wherever a test runs. To be imported before what formats for readers. */
const { DateTimeFormat, NumberFormat } = Intl

Object.assign(Intl, {
  NumberFormat: class extends NumberFormat {
    constructor(_: undefined, options?: Intl.NumberFormatOptions) {
      super("en-GB", options)
    }
  },
  DateTimeFormat: class extends DateTimeFormat {
    constructor(_: undefined, options?: Intl.DateTimeFormatOptions) {
      super("en-GB", { ...options, timeZone: "UTC" })
    }
  }
})
