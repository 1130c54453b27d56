import {isLayerName} from './layer-names.js'
import {goJsonLine, MetaFields, sortedLabels} from './meta-json.js'

/**
 * `X.img.meta`: one JSON object and a newline. Written with exactly these keys in this order:
 * Name, Parent, Removed, UserCreated, Created, Labels. Readers need none of them but Parent.
 */
export interface LayerMeta {
  /** What the file says. After a snapshot it is still the name of the old head: take a layer's name from its file's name. */
  readonly name: string
  /** File name of the layer below, or ''. */
  readonly parent: string
  /** Deleted by someone; its data stays part of the chain until a purge. */
  readonly removed: boolean
  /** False for snapshots that the system took for itself. */
  readonly userCreated: boolean
  /** RFC 3339, UTC, whole seconds. */
  readonly created: string
  readonly labels: Readonly<Record<string, string>> | null
}

/** The description of a new head above `parent` ('' for none). */
export function newHeadMeta(name: string, parent: string, now = new Date()): LayerMeta {
  return {name, parent, removed: false, userCreated: false, created: timestamp(now), labels: null}
}

/** Reads the text of a layer's .meta. Throws CORRUPT, naming `path`, when a value makes no sense. */
export function parseLayerMeta(text: string, path: string): LayerMeta {
  const fields = new MetaFields(text, path)
  const parent = fields.text('Parent')
  if (parent !== '' && !isLayerName(parent)) throw fields.wrong('Parent', parent, 'volume-snap-NAME.img or nothing')
  return {
    name: fields.text('Name'),
    parent,
    removed: fields.flag('Removed'),
    userCreated: fields.flag('UserCreated'),
    created: fields.text('Created'),
    labels: fields.texts('Labels'),
  }
}

export function formatLayerMeta(meta: LayerMeta): string {
  return goJsonLine({
    Name: meta.name,
    Parent: meta.parent,
    Removed: meta.removed,
    UserCreated: meta.userCreated,
    Created: meta.created,
    Labels: sortedLabels(meta.labels),
  })
}

function timestamp(date: Date): string {
  return date.toISOString().replace(/\.\d+Z$/, 'Z')
}
