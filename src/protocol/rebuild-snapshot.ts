// The snapshots that replicas join a volume at. Their names say what they are to the next engine and to the replica itself.
import {randomBytes} from 'node:crypto'

const FILE = /^volume-snap-rebuild-[0-9a-f]{12}\.img$/

/** A name for one, without the parts that make it a file name. */
export function newRebuildSnapshot(): string {
  return `rebuild-${randomBytes(6).toString('hex')}`
}

/** Whether the layer in this file is one. It is marked as removed when the rebuild has come to its end. */
export function isRebuildSnapshot(file: string): boolean {
  return FILE.test(file)
}
