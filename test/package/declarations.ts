/**
 * What the built declarations (`.d.ts`) export, and which types their signatures name that no entry exports. Reads what tsc
 * writes: a statement begins at the start of a line.
 */
import * as Fs from "node:fs"
import * as Path from "node:path"

interface Declaration {
  readonly kinds: Array<string>
  text: string
}

interface Module {
  /** By name, whether exported or not. */
  readonly declarations: Map<string, Declaration>
  readonly exported: Map<string, Place>
  readonly imported: Map<string, Place>
  readonly stars: Array<string>
}

/** `name` is `*` for a whole module. */
interface Place {
  readonly path: string
  readonly name: string
}

export interface PublicName {
  /** `LinuxSockets.layer` of a module exported as a whole. */
  readonly name: string
  readonly kinds: ReadonlyArray<string>
  readonly at: Place
}

export class Declarations {
  readonly #modules = new Map<string, Module>()

  publicNames(path: string): ReadonlyArray<PublicName> {
    const names = new Map<string, PublicName>()
    const { exported, stars } = this.#module(path)
    for (const star of stars) for (const inner of this.publicNames(star)) names.set(inner.name, inner)
    // A name of the module itself hides the same name of a module that it exports as a whole.
    for (const [name, place] of exported) {
      if (place.name === "*")
        for (const inner of this.publicNames(place.path))
          names.set(`${name}.${inner.name}`, { ...inner, name: `${name}.${inner.name}` })
      else {
        const at = this.#declared(place)
        const kinds = this.#module(at.path).declarations.get(at.name)?.kinds ?? []
        names.set(name, { name, kinds, at })
      }
    }
    return [...names.values()].sort((one, other) => (one.name < other.name ? -1 : 1))
  }

  /** `NAME names TYPE` for each of our types in a public signature that no entry exports. */
  hidden(names: ReadonlyArray<PublicName>): ReadonlyArray<string> {
    const known = new Set(names.map(({ at }) => keyOf(at)))
    const found = new Set<string>()
    for (const { name, at } of names)
      for (const used of this.#typesUsedBy(at))
        if (!known.has(keyOf(used)) && this.#isType(used))
          found.add(`${name} names ${used.name} of ${Path.basename(used.path)}`)
    return [...found].sort()
  }

  #typesUsedBy({ path, name }: Place): ReadonlyArray<Place> {
    const { declarations, imported } = this.#module(path)
    const texts = [name, `${name}_base`].map((each) => declarations.get(each)?.text ?? "")
    const words = texts
      .join("\n")
      .replaceAll(/"[^"]*"|^\s*(?:private|#).*$/gm, "")
      .matchAll(/(?<![\w$.])([A-Za-z_$][\w$]*)(?:\.([A-Za-z_$][\w$]*))?(?!\??:)/g)
    return [...words].flatMap(([, word = "", member]) => {
      const local = declarations.has(word) ? { path, name: word } : imported.get(word)
      if (local === undefined || word === name || word.endsWith("_base")) return []
      if (local.name === "*") return member === undefined ? [] : [this.#declared({ ...local, name: member })]
      return [this.#declared(local)]
    })
  }

  #isType({ path, name }: Place): boolean {
    const kinds = this.#module(path).declarations.get(name)?.kinds ?? []
    return ["class", "interface", "type"].some((kind) => kinds.includes(kind))
  }

  /** Where a name is declared that other modules may only re-export. */
  #declared(place: Place): Place {
    const { declarations, exported, imported, stars } = this.#module(place.path)
    if (declarations.has(place.name)) return place
    const passed = imported.get(place.name) ?? exported.get(place.name)
    if (passed !== undefined) return this.#declared(passed)
    const star = stars.find((each) => this.publicNames(each).some(({ name }) => name === place.name))
    if (star === undefined) throw new Error(`${place.path} does not export ${place.name}`)
    return this.#declared({ ...place, path: star })
  }

  #module(path: string): Module {
    const known = this.#modules.get(path)
    if (known !== undefined) return known
    const module: Module = {
      declarations: new Map(),
      exported: new Map(),
      imported: new Map(),
      stars: []
    }
    this.#modules.set(path, module)
    const source = Fs.readFileSync(path, "utf8").replaceAll(/\/\*[\s\S]*?\*\//g, "")
    for (const statement of source.split(/^(?=export |declare |import |type |interface |class )/m))
      read(statement, path, module)
    return module
  }
}

const keyOf = ({ path, name }: Place): string => `${path} ${name}`

const read = (statement: string, path: string, module: Module): void => {
  const from = /from "(\.[^"]*)\.ts";\s*$/.exec(statement)?.[1]
  const source = from === undefined ? path : Path.join(Path.dirname(path), `${from}.d.ts`)
  const whole = /^(export|import(?: type)?) \*(?: as (\w+))?/.exec(statement)
  const list = /^(export|import)(?: type)? \{([^}]*)\}/.exec(statement)
  const declared =
    /^(export )?(?:declare )?(?:abstract )?(const|let|class|function|interface|type) ([\w$]+)/.exec(statement)
  if (whole !== null) {
    const [, keyword, name] = whole
    if (from === undefined) return
    if (name === undefined) module.stars.push(source)
    else module[keyword === "export" ? "exported" : "imported"].set(name, { path: source, name: "*" })
  } else if (list !== null) {
    const [, keyword, names = ""] = list
    if (keyword === "import" && from === undefined) return
    for (const each of names.split(",").filter((part) => part.trim() !== "")) {
      const [name = "", as = name] = each
        .trim()
        .replace(/^type /, "")
        .split(" as ")
      module[keyword === "export" ? "exported" : "imported"].set(as, { path: source, name })
    }
  } else if (declared !== null) {
    const [, isExported, kind = "", name = ""] = declared
    const before = module.declarations.get(name)
    if (before === undefined) module.declarations.set(name, { kinds: [kind], text: statement })
    else {
      before.text += statement
      if (!before.kinds.includes(kind)) before.kinds.push(kind)
    }
    if (isExported !== undefined) module.exported.set(name, { path, name })
  }
}
