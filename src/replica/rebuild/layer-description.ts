import type {LayerMeta} from '../layer-meta.js'

/** A frozen layer as replicas that are up to date have it. */
export interface LayerDescription {
  /** Name of its file. */
  readonly file: string
  readonly meta: LayerMeta
  /** The length of its file in bytes. */
  readonly lengthBytes: number
}

/**
 * True when two descriptions are of one layer: taken at the same moment on top of the same layer, and not merged with another since,
 * as merging changes the parent. Only between replicas that belong together; names and dates of others mean nothing.
 */
export function sameLayer(a: LayerMeta, b: LayerMeta): boolean {
  return a.parent === b.parent && a.created === b.created && a.userCreated === b.userCreated
}
