import {messageOf} from '../../lib/errors.js'
import {BLOCK_BYTES, REGION_BYTES} from '../../protocol/scrub-units.js'

/** A block of one replica that is to be rewritten. */
export interface Repair {
  /** Number within its region. */
  readonly block: number
  /** What it is to be. */
  readonly data: Buffer
  /** Of `data`. */
  readonly digest: Buffer
  /** What it is now; undefined when it cannot be read. */
  readonly now: Buffer | undefined
}

/** Why a block was not healed. */
export interface Unhealed {
  readonly reason: string
  /** The replica's disk refused it. */
  readonly diskFailed: boolean
}

export function unhealed(error: unknown): Unhealed {
  const diskFailed = error instanceof Error && 'code' in error && (error.code === 'LH_IO' || error.code === 'LH_NO_SPACE')
  return {reason: messageOf(error), diskFailed}
}

/** Where a block lies in its layer, in bytes. */
export function offsetOf(region: number, block: number): number {
  return region * REGION_BYTES + block * BLOCK_BYTES
}
