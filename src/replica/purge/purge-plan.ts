/** What the plan needs to know of a layer. */
export interface PlanLayer {
  readonly file: string
  /** File name of the layer below, '' for none. */
  readonly parent: string
  /** Marked as removed. */
  readonly removed: boolean
}

export type PurgeStep =
  /** Nothing stands on it. */
  | {readonly kind: 'remove'; readonly layer: string}
  /** Only `upper` stands on it, which is no head: the two become one, under `upper`'s name. */
  | {readonly kind: 'merge'; readonly lower: string; readonly upper: string}
  /** Only the head stands on it: what the head hides of it can go. */
  | {readonly kind: 'prune'; readonly layer: string}

/**
 * What can be done next to give back the space of removed layers, undefined when nothing is left to do. A removed layer
 * that several stand on has to stay: they all need it. `pruned` are the layers that have had their turn.
 */
export function nextPurgeStep(layers: readonly PlanLayer[], head: string, pruned: ReadonlySet<string>): PurgeStep | undefined {
  const children = new Map<string, string[]>()
  for (const {file, parent} of layers) children.set(parent, [...(children.get(parent) ?? []), file])
  const removed = layers.filter(layer => layer.removed && layer.file !== head)
  const orphan = removed.find(({file}) => !children.has(file))
  if (orphan !== undefined) return {kind: 'remove', layer: orphan.file}
  for (const {file} of removed) {
    const [upper, ...others] = children.get(file)!
    if (others.length === 0 && upper !== undefined && upper !== head) return {kind: 'merge', lower: file, upper}
  }
  const under = removed.find(({file}) => children.get(file)?.length === 1 && !pruned.has(file))
  return under && {kind: 'prune', layer: under.file}
}
