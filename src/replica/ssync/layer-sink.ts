import {webcrypto} from 'node:crypto'
import {constants} from 'node:fs'
import {open, stat, type FileHandle} from 'node:fs/promises'
import {join} from 'node:path'
import {errnoOf, LonghornError} from '../../lib/errors.js'
import {punchHole} from '../../lib/sys/fallocate.js'
import {scannerFor, type ExtentScanner} from '../../lib/sys/file-extents.js'
import {realDisk} from '../disk-steps.js'
import {ioFailure} from '../io-failure.js'
import {checksumFile} from '../layer-names.js'
import type {Interval} from './exchange.js'
import {currentChecksumText} from './recorded-checksum.js'
import type {Sink} from './sink.js'

/** After this many bytes a sync begins beside the transfer, so that the last one is short and memory stays free. */
const SYNC_BYTES = 64 * 1024 * 1024

/**
 * Receives the data of a snapshot, in place: of a file that is there, only what differs travels. What an interruption leaves is a
 * mixture; who keeps it from being taken for the layer is the caller (see RebuildTarget).
 */
export class LayerSink implements Sink {
  #file: FileHandle | undefined
  #scanner: ExtentScanner | undefined
  #unsynced = 0
  #syncing: Promise<void> | undefined

  constructor(
    readonly directory: string,
    readonly layer: string,
    readonly maxBytes: number,
  ) {}

  open(sizeBytes: number): Promise<boolean> {
    return this.#doing('creating', async () => {
      const path = join(this.directory, this.layer)
      const existed = await this.#isThere(path)
      await realDisk.remove(join(this.directory, checksumFile(this.layer)))
      const flags = constants.O_RDWR | constants.O_NOFOLLOW | (existed ? 0 : constants.O_CREAT | constants.O_EXCL)
      this.#file = await open(path, flags, 0o644)
      this.#scanner = scannerFor(this.#file.fd)
      await this.#file.truncate(sizeBytes)
      return existed
    })
  }

  write(data: Buffer, offset: number): Promise<void> {
    return this.#doing(`writing ${data.length} bytes at ${offset} to`, async () => {
      for (let done = 0; done < data.length; ) done += (await this.#opened().write(data, done, data.length - done, offset + done)).bytesWritten
      this.#unsynced += data.length
      if (this.#unsynced < SYNC_BYTES || this.#syncing !== undefined) return
      this.#unsynced = 0
      // After a failed sync the kernel has forgotten what it could not write: finish() must fail, whatever its own sync says.
      this.#syncing = this.#opened().datasync()
      this.#syncing.then(
        () => (this.#syncing = undefined),
        () => undefined,
      )
    })
  }

  punch({begin, end}: Interval): Promise<void> {
    return this.#doing(`punching a hole at ${begin} into`, () => punchHole(this.#opened().fd, begin, end - begin))
  }

  checksum({begin, end}: Interval): Promise<Buffer | undefined> {
    return this.#doing(`reading ${end - begin} bytes at ${begin} of`, async () => {
      const {fd} = this.#opened()
      let covered = begin
      this.#scanner!.scan(fd, begin, end - begin, (offset, length) => {
        if (offset <= covered) covered = offset + length
      })
      if (covered < end) return undefined
      const data = Buffer.allocUnsafeSlow(end - begin)
      for (let done = 0; done < data.length; ) {
        const {bytesRead} = await this.#opened().read(data, done, data.length - done, begin + done)
        if (bytesRead === 0) return undefined
        done += bytesRead
      }
      // In the thread pool: hashing here would keep the volume's I/O waiting.
      return Buffer.from(await webcrypto.subtle.digest('SHA-512', data))
    })
  }

  recorded(): Promise<string> {
    return currentChecksumText(this.directory, this.layer)
  }

  finish(): Promise<void> {
    return this.#doing('syncing', async () => {
      await this.#syncing
      await this.#opened().sync()
      await this.abandon()
      await realDisk.syncDirectory(this.directory)
    })
  }

  async abandon(): Promise<void> {
    const file = this.#file
    this.#file = undefined
    await this.#syncing?.catch(() => undefined)
    await file?.close()
  }

  /** A file with a second name may be another layer as well, and must not change with this one: it is replaced by an empty one. */
  async #isThere(path: string): Promise<boolean> {
    const found = await stat(path).catch((error: unknown) => {
      if (errnoOf(error) === 'ENOENT') return undefined
      throw error
    })
    if (found === undefined) return false
    if (!found.isFile()) throw new LonghornError('CONFLICT', `${path} is not a file: remove it`)
    if (found.nlink === 1) return true
    const temporary = `${path}.tmp`
    await realDisk.remove(temporary)
    await realDisk.createSparse(temporary, found.size, 0o644)
    await realDisk.rename(temporary, path)
    return true
  }

  #opened(): FileHandle {
    if (this.#file === undefined) throw new LonghornError('CONFLICT', `${this.layer} is not being received`)
    return this.#file
  }

  async #doing<T>(what: string, work: () => Promise<T>): Promise<T> {
    try {
      return await work()
    } catch (error) {
      throw ioFailure(`${what} ${join(this.directory, this.layer)}`, error)
    }
  }
}
