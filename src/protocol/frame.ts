// The data protocol's frame (reference: docs/format.md, "Data protocol"): a packed little-endian header, then the payload.
//   0 u16 magic 0x1B01   2 u32 sequence   6 u32 type   10 i64 offset   18 u32 size   22 u32 payload length
// Types 0 to 8 are upstream's. Those from 0x100 on are ours, and are sent only to a replica that listed the feature in
// ReplicaService.ReplicaOpen: an upstream server drops a type that it does not know without an answer.
import {ERRNO} from './block-device.js'

export const FRAME_MAGIC = 0x1b01
export const FRAME_HEADER_BYTES = 26

export const FRAME = {
  READ: 0,
  WRITE: 1,
  RESPONSE: 2,
  ERROR: 3,
  EOF: 4,
  CLOSE: 5,
  PING: 6,
  UNMAP: 7,
  /** Engine to initiator only; an upstream engine would take it for success. */
  ENOSPC: 8,
  /** Everything answered before survives a power cut once this is answered. */
  FLUSH: 0x100,
  /** A WRITE that is answered when it survives a power cut. */
  WRITE_DURABLE: 0x101,
  /** `size` bytes read as zeros from now on; no payload. */
  WRITE_ZEROES: 0x102,
  /** The same, and the space stays allocated. */
  WRITE_ZEROES_ALLOCATED: 0x103,
  /** What is allocated in `size` bytes. The answer's payload: u32 length, u32 flags (bit 0: allocated) per extent. */
  BLOCK_STATUS: 0x104,
  /** A WRITE of at most 128 KiB of which a crash or power cut leaves all or nothing; answered when it survives one. */
  WRITE_ATOMIC: 0x105,
  /** Who this connection is and what it is for: the text in the payload (hello.ts). Sent first, and answered before anything else is sent. */
  HELLO: 0x106,
  /** What tells `size` bytes of a layer, and where in them it has data, from any others; DIGEST_BYTES. Only after a HELLO for a layer, under its key. */
  DIGEST: 0x107,
  /**
   * Good data, of whole blocks and at most 128 KiB, for a range that could not be read here. Nobody writes to it meanwhile. Blocks that the
   * head holds are rewritten and read back. The answer's payload is a u32: the bytes that a frozen layer holds, which stay as they are.
   */
  REPAIR: 0x110,
} as const

/** Features a replica may list, each with the frame types that it stands for. */
export const FEATURE = {
  FLUSH: 'flush',
  /** WRITE_DURABLE. */
  FUA: 'fua',
  WRITE_ZEROES: 'write-zeroes',
  BLOCK_STATUS: 'block-status',
  WRITE_ATOMIC: 'write-atomic',
  /** ReplicaSnapshotPrepare, and a ReplicaSnapshot that is durable with the next FLUSH only. */
  SNAPSHOT_PREPARE: 'snapshot-prepare',
  /** HELLO: a data connection is one of an engine's session, and ends with it. */
  HELLO: 'hello',
  /** ReplicaMembersSet: it keeps a record of who has everything that was acknowledged. */
  MEMBERS: 'members',
  /** ReplicaJoin and what follows, DIGEST: it can be rebuilt from others and others from it. */
  REBUILD: 'rebuild',
  REPAIR: 'repair',
  /** LayerDigests and the other calls of SyncAgentService that compare and heal frozen layers. */
  SCRUB: 'scrub',
  /** LayerHealBlocks: many blocks are healed with one call. */
  SCRUB_RUNS: 'scrub-runs',
  /** BackupRestoreFinish and BackupRestoreCancel of SyncAgentService: a backup is put in its place when the engine says so. */
  RESTORE: 'restore',
} as const

/** What this program's replicas can do. */
export const ALL_FEATURES: readonly string[] = Object.values(FEATURE)

/** The longest range that a frame's 32-bit size can say, on a block. Bytes. */
export const MAX_FRAME_RANGE = 0xffff_f000

/** Longest text that a reader takes from an ERROR frame; the rest is skipped. */
export const MAX_ERROR_TEXT_BYTES = 4096

/** Bytes of the payload of the answer to a REPAIR. */
export const REPAIR_ANSWER_BYTES = 4

/** Bytes per extent in a BLOCK_STATUS answer, and the most extents in one. */
export const EXTENT_BYTES = 8
export const MAX_EXTENTS = 4096
export const EXTENT_ALLOCATED = 1

/** The most text in a HELLO. */
export const MAX_HELLO_BYTES = 512
export const DIGEST_BYTES = 16
/** A key for Poly1305's one-time keys; see digestRegion(). */
export const DIGEST_KEY_BYTES = 32
/** The most that one DIGEST covers. */
export const MAX_DIGEST_RANGE = 4 * 1024 * 1024

const TWO_TO_32 = 4294967296
/** Above this an offset is no exact number any more: 2^53 / 2^32. */
const MAX_OFFSET_HIGH = 0x200000

/** The offset at `at + 10`, or -1 when it is negative or larger than any volume. */
export function frameOffset(from: Buffer, at: number): number {
  const high = from.readUInt32LE(at + 14)
  return high < MAX_OFFSET_HIGH ? high * TWO_TO_32 + from.readUInt32LE(at + 10) : -1
}

/** Writes a header at `at`. `offset` is 0 or more; -1 is written as it was received from a peer that sent nonsense. */
export function writeFrameHeader(
  to: Buffer,
  at: number,
  sequence: number,
  type: number,
  offset: number,
  size: number,
  payloadLength: number,
): void {
  to.writeUInt16LE(FRAME_MAGIC, at)
  to.writeUInt32LE(sequence, at + 2)
  to.writeUInt32LE(type, at + 6)
  const high = Math.floor(offset / TWO_TO_32)
  to.writeUInt32LE(offset - high * TWO_TO_32, at + 10)
  to.writeInt32LE(high, at + 14)
  to.writeUInt32LE(size, at + 18)
  to.writeUInt32LE(payloadLength, at + 22)
}

const NO_SPACE_TEXT = 'no space left on device'

/** The text of an ERROR frame. Upstream's engine looks for exactly these words when a disk is full. */
export function errorText(errno: number): string {
  switch (errno) {
    case ERRNO.ENOSPC:
      return NO_SPACE_TEXT
    case ERRNO.EINVAL:
      return 'EOF: the request is outside of the volume'
    case ERRNO.ESHUTDOWN:
      return 'replica no longer exist'
    default:
      return 'input/output error'
  }
}

/** The errno that a text stands for; EIO for everything else. */
export function errnoOfText(text: string): number {
  return text.includes(NO_SPACE_TEXT) ? ERRNO.ENOSPC : ERRNO.EIO
}
