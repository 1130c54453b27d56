// What is written down about one attachment. The file is no proof of anything: it may be older or newer than the system
// by one step, and everything in it is checked against the system before it is acted upon.
import {readFile, rename, writeFile} from 'node:fs/promises'
import {errnoOf} from '../../lib/errors.js'
import type {AttachRequest, BlockNode, Endpoint, Notes} from './attach-way.js'

export interface AttachmentRecord {
  readonly version: 1
  readonly volume: string
  /** Random; see Slot. */
  readonly id: string
  /** The name of the way that made it, or was making it. */
  readonly way: string
  /** The boot it belongs to: processes, mounts and loop devices of another one do not exist. */
  readonly bootId: string
  /** ISO 8601. */
  readonly attachedAt: string
  readonly request: AttachRequest
  /** Written when the device works and before its node in /dev/longhorn is made. */
  readonly node?: BlockNode
  readonly notes: Notes
}

/** Undefined when there is none, or none that can be understood. */
export async function readRecord(path: string): Promise<AttachmentRecord | undefined> {
  try {
    const value: unknown = JSON.parse(await readFile(path, 'utf8'))
    return isRecord(value) ? value : undefined
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || error instanceof SyntaxError) return undefined
    throw error
  }
}

/**
 * Replaced in one step, so that a process that dies leaves the old or the new one. It is not synced: after a power cut
 * nothing is left of what it describes, and then a lost or torn record is as good as one with the wrong boot id.
 */
export async function writeRecord(path: string, record: AttachmentRecord): Promise<void> {
  const temporary = `${path}.tmp`
  await writeFile(temporary, `${JSON.stringify(record, undefined, 2)}\n`, {mode: 0o600})
  await rename(temporary, path)
}

function isRecord(value: unknown): value is AttachmentRecord {
  return (
    isObject(value) &&
    value.version === 1 &&
    [value.volume, value.id, value.way, value.bootId, value.attachedAt].every(text => typeof text === 'string') &&
    isRequest(value.request) &&
    (value.node === undefined || isNode(value.node)) &&
    isObject(value.notes)
  )
}

function isRequest(value: unknown): value is AttachRequest {
  return isObject(value) && typeof value.volume === 'string' && typeof value.trim === 'string' && isEndpoint(value.endpoint)
}

function isEndpoint(value: unknown): value is Endpoint {
  if (!isObject(value) || !isObject(value.address)) return false
  if (value.kind === 'iscsi') return typeof value.iqn === 'string' && typeof value.lun === 'number'
  return value.kind === 'nbd' && typeof value.exportName === 'string'
}

function isNode(value: unknown): value is BlockNode {
  return isObject(value) && typeof value.name === 'string' && Number.isInteger(value.major) && Number.isInteger(value.minor)
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null
}
