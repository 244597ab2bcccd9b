/** What is followed, as a list: how one is known again, and what becomes of it when its container or its ports change. */
import type { Container } from "./Engine.ts"
import { type Follow, followed, shortId, wantedByFollow } from "./Wanted.ts"

/** Asked for again, a follow takes the place of the one before. */
export const followKey = ({ id, publish, owner }: Follow): string => `${owner} ${id} ${publish}`

/** A container that was renamed is followed under its new name. */
export const renamed = (
  follows: ReadonlyArray<Follow>,
  containers: ReadonlyArray<Container>
): ReadonlyArray<Follow> =>
  follows.map((follow) => {
    const name = followed(follow, containers)?.name ?? follow.name
    return name === follow.name ? follow : { ...follow, name }
  })

/** Without the ports whose wants have these keys; nothing where none is left. */
export const withoutPorts = (follow: Follow, keys: ReadonlySet<string>): ReadonlyArray<Follow> => {
  const prefix = `${follow.owner} ${shortId(follow.id)} ${follow.publish} `
  const gone = [...keys].flatMap((key) => (key.startsWith(prefix) ? [Number(key.slice(prefix.length))] : []))
  if (gone.length === 0) return [follow]
  const less = { ...follow, without: [...new Set([...follow.without, ...gone])] }
  const left = wantedByFollow(less, [])
  return left.wants.length + left.problems.length === 0 ? [] : [less]
}
