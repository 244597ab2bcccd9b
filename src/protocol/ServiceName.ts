/** Services: containers that share a port, and the label by which they do. */

export const shareLabel = "portmapper.share"

/**
 * The name of a service as people read it. A mapping has it as `KIND PROJECT/NAME`, with the kind of its callers and,
 * from `watch`, the compose project; without compose the project is made up, and begins with a dot.
 */
export const serviceName = (service: string): string =>
  service.slice(service.indexOf(" ") + 1).replace(/^\.[^/]*\//, "")
