/** What to do where nothing is listed. */
import { Command } from "./Text.tsx"
import { show } from "./view.ts"

export const Empty = ({ all }: { readonly all: number }) =>
  all === 0 ? (
    <div class="empty">
      <h2>Nothing is published yet</h2>
      <p>A port that is published appears here by itself. To publish one of a container or an address:</p>
      <Command label="the command that maps" text="portmapper map -p 8080:80 --to 172.17.0.2" />
      <p>
        Where the plugin runs as <code>serve --watch</code>, a label does it:
      </p>
      <Command label="the command with a label" text="docker run -d -l portmapper.publish=8080:80 nginx" />
    </div>
  ) : (
    <div class="empty">
      <h2>No port has all of these words</h2>
      <p>
        The filter looks in ports, addresses, containers, services, modes, owners, states, reasons and labels.
      </p>
      <button type="button" onClick={() => show({ filter: "" })}>
        Clear the filter
      </button>
    </div>
  )
