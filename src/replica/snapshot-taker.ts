import {fdatasync} from 'node:fs'
import {LonghornError} from '../lib/errors.js'
import {syncedFiles, type HeadContext} from './head-context.js'
import {ioFailure} from './io-failure.js'
import type {OpenDirectory} from './open-directory.js'
import type {RetiredFiles} from './retired-files.js'
import {BLOCK_BYTES} from './sector-map.js'
import {commitPrepared, discardPrepared, prepareSnapshot, removeOldNames, syncDirectoryOnce, withSnapshot, type PreparedSnapshot, type SnapshotSpec} from './snapshot.js'

/** Takes snapshots of an open volume while it is written: the slow part (snapshot.ts) goes on beside the writes, the rename without any. */
export class SnapshotTaker {
  #prepared: PreparedSnapshot | undefined
  /** The removal of the names that the last frozen layer had as a head. */
  #oldNames: Promise<void> = Promise.resolve()

  constructor(
    readonly context: HeadContext,
    readonly directory: OpenDirectory,
    readonly retired: RetiredFiles,
  ) {}

  /**
   * Does everything for a snapshot but the step that takes it; what was prepared before is taken back. Throws CONFLICT when there is such
   * a snapshot already, USAGE for a name that cannot be one or a size that the volume cannot become.
   */
  async prepare(spec: SnapshotSpec): Promise<void> {
    const {gate, stack} = this.context
    if (gate.reason !== undefined) throw gate.reason
    checkGrowth(stack.sizeBytes, spec.growTo)
    await this.discard()
    const {contents, meta, disk} = this.directory
    try {
      this.#prepared = await prepareSnapshot(contents, meta, spec, disk)
    } catch (error) {
      throw ioFailure(`preparing snapshot ${spec.name} in ${contents.path}`, error)
    }
  }

  /** Takes back what prepare() did, if it has not become a snapshot. */
  async discard(): Promise<void> {
    const prepared = this.#prepared
    this.#prepared = undefined
    if (prepared !== undefined) await discardPrepared(this.directory.path, prepared, this.directory.disk)
  }

  /**
   * Freezes the volume as it is: every change that was done before this call is in the snapshot, those asked for while it
   * runs wait and are not. It takes a rename when it was prepared. It survives a crash at once and a power cut from the
   * next flush on. When this rejects nothing has changed. Errors as those of prepare().
   */
  async take(spec: SnapshotSpec): Promise<void> {
    if (this.#prepared?.spec.name !== spec.name) await this.prepare(spec)
    const prepared = this.#prepared!
    const {locks, gate} = this.context
    const {path, disk} = this.directory
    const ticket = locks.acquire(0, Infinity)
    try {
      if (ticket.ready !== undefined) await ticket.ready
      if (gate.reason !== undefined) throw gate.reason
      await this.directory.replaceMeta(() => commitPrepared(path, disk))
      this.#prepared = undefined
      this.#freeze(prepared)
    } catch (error) {
      await this.discard().catch(() => undefined)
      throw ioFailure(`taking snapshot ${spec.name} in ${path}`, error)
    } finally {
      locks.release(ticket)
    }
  }

  /** Resolves when the names that the last frozen layer had as a head are gone, or the next open will remove them. */
  async settled(): Promise<void> {
    await this.#oldNames
  }

  /** Closes the files of what is still prepared. Safe after discard(). */
  close(): void {
    this.#prepared?.frozenFile.close()
    this.#prepared?.headFile.close()
  }

  /** The snapshot has been taken on disk: goes on with the new head. */
  #freeze(prepared: PreparedSnapshot): void {
    const {stack, flusher} = this.context
    const {contents, path, disk} = this.directory
    const oldName = stack.head.file
    if (prepared.volume.sizeBytes > stack.sizeBytes) stack.grow(prepared.volume.sizeBytes)
    const old = stack.push(prepared.frozenFile, prepared.headFile)
    this.retired.add([old])
    this.directory.meta = prepared.volume
    this.directory.contents = withSnapshot(contents, prepared)
    // What the frozen layer has in memory still, and the names, go to the disk with the next flush.
    flusher.switchTo(syncedFiles(this.context), stack.head.path, [
      {sync: done => fdatasync(old.fd, done), synced: () => void this.retired.release([old])},
      syncDirectoryOnce(path, disk, () => {
        // Not before: until then a power cut brings back the volume.meta that names it. An open removes it as well.
        this.#oldNames = removeOldNames(path, oldName, disk).catch(() => undefined)
      }),
    ])
  }
}

/** Throws USAGE for a size that a volume cannot become. */
function checkGrowth(sizeBytes: number, growTo: number | undefined): void {
  if (growTo === undefined) return
  if (growTo % BLOCK_BYTES !== 0) throw new LonghornError('USAGE', `a volume cannot be expanded to ${growTo} bytes: expected a multiple of ${BLOCK_BYTES}`)
  if (growTo <= sizeBytes) throw new LonghornError('USAGE', `a volume of ${sizeBytes} bytes cannot be expanded to ${growTo}`)
}
