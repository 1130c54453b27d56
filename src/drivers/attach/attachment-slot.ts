import {randomBytes} from 'node:crypto'
import {existsSync} from 'node:fs'
import {mkdir, readdir, readFile, rmdir, unlink} from 'node:fs/promises'
import {join} from 'node:path'
import {errnoOf} from '../../lib/errors.js'
import type {AttachRequest, BlockNode, Notes, Slot} from './attach-way.js'
import {readRecord, writeRecord, type AttachmentRecord} from './attachment-record.js'

const RECORD = 'attachment.json'

/** The directory and the record of one volume's attachment. The directory goes last, so without one there is nothing. */
export class AttachmentSlot implements Slot {
  readonly volume: string
  readonly directory: string
  readonly step: (name: string) => void
  readonly #bootId: string
  #record: AttachmentRecord | undefined

  private constructor(volume: string, directory: string, bootId: string, record: AttachmentRecord | undefined, step: (name: string) => void) {
    this.volume = volume
    this.directory = directory
    this.step = step
    this.#bootId = bootId
    this.#record = record
  }

  static async open(volume: string, directory: string, step: (name: string) => void): Promise<AttachmentSlot> {
    const bootId = (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim()
    return new AttachmentSlot(volume, directory, bootId, await readRecord(join(directory, RECORD)), step)
  }

  get exists(): boolean {
    return existsSync(this.directory)
  }

  get record(): AttachmentRecord | undefined {
    return this.#record
  }

  /** There is a record, and it cannot be understood. */
  get recordLost(): boolean {
    return this.#record === undefined && existsSync(join(this.directory, RECORD))
  }

  get id(): string | undefined {
    return this.#record?.id
  }

  get notes(): Notes | undefined {
    return this.#record?.bootId === this.#bootId ? this.#record.notes : undefined
  }

  /** Makes the directory and says in it what is about to be done. */
  async begin(way: string, request: AttachRequest): Promise<void> {
    await mkdir(this.directory, {recursive: true, mode: 0o700})
    this.step('slot directory made')
    const id = randomBytes(8).toString('hex')
    const attachedAt = new Date().toISOString()
    await this.#write({version: 1, volume: this.volume, id, way, bootId: this.#bootId, attachedAt, request, notes: {}})
  }

  async note(more: Notes): Promise<void> {
    const record = this.#mustHaveRecord()
    await this.#write({...record, notes: {...record.notes, ...more}})
  }

  async setNode(node: BlockNode): Promise<void> {
    await this.#write({...this.#mustHaveRecord(), node})
  }

  /**
   * Removes the record and the directory. Never recursive: should a mount have been missed, what is in it is a volume,
   * and rmdir fails with EBUSY.
   */
  async remove(): Promise<void> {
    try {
      for (const entry of await readdir(this.directory, {withFileTypes: true})) {
        const path = join(this.directory, entry.name)
        await (entry.isDirectory() ? rmdir(path) : unlink(path))
      }
      this.step('slot directory emptied')
      await rmdir(this.directory)
      this.step('slot directory removed')
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw error
    }
    this.#record = undefined
  }

  async #write(record: AttachmentRecord): Promise<void> {
    await writeRecord(join(this.directory, RECORD), record)
    this.#record = record
    this.step('record written')
  }

  #mustHaveRecord(): AttachmentRecord {
    if (this.#record === undefined) throw new Error('there is no record: begin() comes first')
    return this.#record
  }
}
