import { execFileSync } from "node:child_process"
import { assert } from "@effect/vitest"
import { testNeeding } from "../lab/describeLab.ts"

const module = new URL("../../adapters/node/DefaultPaths.ts", import.meta.url).href

/** The paths that a process of this user has by default. */
const paths = (uid: number, runtime: string | undefined) =>
  JSON.parse(
    execFileSync(
      process.execPath,
      [
        ...["--input-type=module", "--eval"],
        `const { defaultSocket, defaultState, lastingState } = await import(${JSON.stringify(module)})
         const socket = defaultSocket("pm")
         const state = defaultState(socket)
         console.log(JSON.stringify([socket, state, lastingState(state), lastingState("/srv/run/x")]))`
      ],
      { uid, env: { TMPDIR: "/t", XDG_RUNTIME_DIR: runtime }, encoding: "utf8", cwd: "/" }
    )
  )

testNeeding(
  "root's paths are the Engine's, and another user's are in folders of its own",
  ["root"],
  async () => {
    const lasting = ["/var/lib/portmapper", "/srv/run/x"]
    assert.deepStrictEqual(paths(0, "/x"), ["/run/docker/plugins/pm.sock", "/run/portmapper", ...lasting])
    for (const [runtime, folder] of [
      ["/run/user/7", "/run/user/7/portmapper"],
      ["", "/t/portmapper-65534"],
      [undefined, "/t/portmapper-65534"]
    ] as const) {
      const state = `${folder}/pm.state`
      assert.deepStrictEqual(paths(65534, runtime), [`${folder}/pm.sock`, state, state, "/srv/run/x"])
    }
  }
)
