import {createHash} from 'node:crypto'
import {constants} from 'node:fs'
import {open, readFile, stat, type FileHandle} from 'node:fs/promises'
import {join} from 'node:path'
import {errnoOf} from '../lib/errors.js'
import type {DiskSteps} from './disk-steps.js'
import {VOLUME_META} from './layer-names.js'

/** The file of the journal; ours, upstream does not look at it. */
export const ATOMIC_JOURNAL = 'atomic-write.journal'

const MAGIC = 'LHATOMW1'
/** The data begins where the next block of the disk does. */
const DATA_AT = 4096
const DIGEST_AT = 40
const HEADER_BYTES = DIGEST_AT + 32
/** The longest write that it takes, in bytes. */
export const MAX_ATOMIC_BYTES = 128 * 1024

/** A write that was begun. */
export interface JournalledWrite {
  readonly offset: number
  readonly data: Buffer
}

/**
 * Remembers one write until it is whole on the disk, so that a crash or a power cut leaves all of it or nothing. Little-endian:
 *
 *     0 "LHATOMW1"   8 u64 offset   16 u32 length   20 u32 0   24 u64 inode of volume.meta   32 u64 its ctime in ns
 *     40 SHA-256 of bytes 0 to 39 and of the data   4096 the data
 *
 * A journal with another digest was cut short: its write had not begun. volume.meta is replaced when upstream opens the
 * directory and when a snapshot is taken; a journal from before that is of no use any more, since newer writes may be there.
 */
export class AtomicJournal {
  #file: FileHandle | undefined

  constructor(
    readonly directory: string,
    readonly disk: DiskSteps,
  ) {}

  /** Resolves when the write would be made good after a power cut. Node's errors. */
  async begin(offset: number, data: Buffer): Promise<void> {
    const file = await this.#open()
    const {ino, ctimeNs} = await stat(join(this.directory, VOLUME_META), {bigint: true})
    const page = Buffer.alloc(DATA_AT + data.length)
    page.write(MAGIC, 'latin1')
    page.writeBigUInt64LE(BigInt(offset), 8)
    page.writeUInt32LE(data.length, 16)
    page.writeBigUInt64LE(ino, 24)
    page.writeBigUInt64LE(ctimeNs, 32)
    data.copy(page, DATA_AT)
    digest(page).copy(page, DIGEST_AT)
    await writeFully(file, page)
    await file.datasync()
  }

  /** Forgets the write, which is whole on the disk. */
  async end(): Promise<void> {
    const file = await this.#open()
    await writeFully(file, Buffer.alloc(HEADER_BYTES))
    await file.datasync()
  }

  async close(): Promise<void> {
    const file = this.#file
    this.#file = undefined
    await file?.close()
  }

  async #open(): Promise<FileHandle> {
    if (this.#file === undefined) {
      this.#file = await open(join(this.directory, ATOMIC_JOURNAL), constants.O_RDWR | constants.O_CREAT, 0o600)
      await this.disk.syncDirectory(this.directory)
    }
    return this.#file
  }
}

/** The write that was begun and not ended in this directory, undefined when there is none. */
export async function readAtomicJournal(directory: string): Promise<JournalledWrite | undefined> {
  const page = await readFile(join(directory, ATOMIC_JOURNAL)).catch((error: unknown) => {
    if (errnoOf(error) !== 'ENOENT') throw error
    return Buffer.alloc(0)
  })
  if (page.length < DATA_AT || page.toString('latin1', 0, MAGIC.length) !== MAGIC) return undefined
  const length = page.readUInt32LE(16)
  if (length === 0 || length > MAX_ATOMIC_BYTES || page.length < DATA_AT + length) return undefined
  const written = page.subarray(0, DATA_AT + length)
  if (!digest(written).equals(written.subarray(DIGEST_AT, HEADER_BYTES))) return undefined
  const {ino, ctimeNs} = await stat(join(directory, VOLUME_META), {bigint: true})
  if (page.readBigUInt64LE(24) !== ino || page.readBigUInt64LE(32) !== ctimeNs) return undefined
  return {offset: Number(page.readBigUInt64LE(8)), data: written.subarray(DATA_AT)}
}

function digest(page: Buffer): Buffer {
  return createHash('sha256').update(page.subarray(0, DIGEST_AT)).update(page.subarray(DATA_AT)).digest()
}

async function writeFully(file: FileHandle, bytes: Buffer): Promise<void> {
  for (let done = 0; done < bytes.length; ) done += (await file.write(bytes, done, bytes.length - done, done)).bytesWritten
}
