// The parameter list of EXTENDED COPY(LID1) (SPC-4, 6.4):
//   0 list identifier  1 list identifier usage (bits 4-3)  2 length of target descriptors (2)  8 length of segment
//   descriptors (4)  12 length of inline data (4)  16 target descriptors, segment descriptors
// Target, by designator: 0 E4h  1 device type (bits 4-0)  4 code set  5 association|type  7 length  8 designator (20)
//   29 block length (3)
// Segment, block to block: 0 02h  2 length of the rest (2)  4 source (2)  6 destination (2)  10 number of blocks (2)
//   12 source LBA (8)  20 destination LBA (8)
import {readAddress} from '../cdb.js'
import {CheckCondition, invalidParameter} from '../check-condition.js'
import {COPY_LIMIT} from '../copy-limits.js'
import {BLOCK_BYTES} from '../geometry.js'
import {CONDITION} from '../sense.js'

const HEADER_BYTES = 16
const TARGET = {CODE: 0xe4, BYTES: 32, DESIGNATOR: 20} as const
const SEGMENT = {CODE: 0x02, BYTES: 28} as const
const NO_LIST_ID = 3

export interface CopySegment {
  readonly source: number
  readonly destination: number
  readonly blocks: number
  readonly sourceLba: number
  readonly destinationLba: number
}

export interface CopyRequest {
  /** Undefined: no results are to be kept. */
  readonly listId: number | undefined
  /** For each target whether its designator is one of ours. */
  readonly targets: readonly boolean[]
  readonly segments: readonly CopySegment[]
}

/** `designators`: descriptors of the device identification page that name the disk. Throws for a list that cannot be read. */
export function parseCopy(list: Buffer, designators: readonly Buffer[]): CopyRequest {
  if (list.length < HEADER_BYTES) throw new CheckCondition(CONDITION.PARAMETER_LIST_LENGTH_ERROR)
  const targetBytes = list.readUInt16BE(2)
  const segmentBytes = list.readUInt32BE(8)
  if (list.readUInt32BE(12) !== 0) throw invalidParameter(12)
  if (targetBytes + segmentBytes > COPY_LIMIT.LIST_BYTES) throw new CheckCondition(CONDITION.PARAMETER_LIST_LENGTH_ERROR)
  const segmentsAt = HEADER_BYTES + targetBytes
  const end = segmentsAt + segmentBytes
  if (end > list.length) throw new CheckCondition(CONDITION.PARAMETER_LIST_LENGTH_ERROR)
  const usage = (list[1]! >> 3) & 3
  return {
    listId: usage === NO_LIST_ID ? undefined : list[0]!,
    targets: parseTargets(list, HEADER_BYTES, segmentsAt, designators),
    segments: parseSegments(list, segmentsAt, end),
  }
}

function parseTargets(list: Buffer, start: number, end: number, designators: readonly Buffer[]): boolean[] {
  const targets: boolean[] = []
  for (let at = start; at < end; at += TARGET.BYTES) {
    if (list[at] !== TARGET.CODE) throw new CheckCondition(CONDITION.UNSUPPORTED_TARGET_DESCRIPTOR, {field: {in: 'parameters', byte: at}})
    if (targets.length === COPY_LIMIT.TARGETS) throw new CheckCondition(CONDITION.TOO_MANY_TARGET_DESCRIPTORS)
    if (at + TARGET.BYTES > end) throw new CheckCondition(CONDITION.PARAMETER_LIST_LENGTH_ERROR)
    targets.push(isOurs(list.subarray(at, at + TARGET.BYTES), at, designators))
  }
  return targets
}

function isOurs(target: Buffer, at: number, designators: readonly Buffer[]): boolean {
  const length = target[7]!
  if (length > TARGET.DESIGNATOR) throw invalidParameter(at + 7)
  const isDisk = (target[1]! & 0x1f) === 0
  const wanted = target.subarray(4, 8 + length)
  const known = designators.some(([codeSet, kind, , size], index) => {
    const same = codeSet === wanted[0]! && kind === wanted[1]! && size === length
    return same && designators[index]!.subarray(4).equals(wanted.subarray(4))
  })
  if (known && isDisk && (target.readUInt32BE(28) & 0xffffff) !== BLOCK_BYTES) throw invalidParameter(at + 29)
  return known && isDisk
}

function parseSegments(list: Buffer, start: number, end: number): CopySegment[] {
  const segments: CopySegment[] = []
  for (let at = start; at < end; at += SEGMENT.BYTES) {
    if (list[at] !== SEGMENT.CODE) throw new CheckCondition(CONDITION.UNSUPPORTED_SEGMENT_DESCRIPTOR, {field: {in: 'parameters', byte: at}})
    if (segments.length === COPY_LIMIT.SEGMENTS) throw new CheckCondition(CONDITION.TOO_MANY_SEGMENT_DESCRIPTORS)
    if (at + SEGMENT.BYTES > end) throw new CheckCondition(CONDITION.PARAMETER_LIST_LENGTH_ERROR)
    if (list.readUInt16BE(at + 2) !== SEGMENT.BYTES - 4) throw invalidParameter(at + 2)
    segments.push({
      source: list.readUInt16BE(at + 4),
      destination: list.readUInt16BE(at + 6),
      blocks: list.readUInt16BE(at + 10),
      sourceLba: readAddress(list, at + 12),
      destinationLba: readAddress(list, at + 20),
    })
  }
  return segments
}
