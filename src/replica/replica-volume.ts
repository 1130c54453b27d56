import {fstatSync} from 'node:fs'
import type {Cleanup} from '../lib/cleanup.js'
import {LonghornError} from '../lib/errors.js'
import type {ExtentScanner} from '../lib/sys/file-extents.js'
import {AtomicJournal, type JournalledWrite} from './atomic-journal.js'
import type {DirectoryLock} from './directory-lock.js'
import type {DiskSteps} from './disk-steps.js'
import {Flusher} from './flusher.js'
import {FrozenLayers} from './frozen-layers.js'
import {Gate} from './gate.js'
import {HeadAtomicWriter} from './head-atomic-writer.js'
import {heldByHead, syncedFiles} from './head-context.js'
import {HeadRepairer} from './head-repairer.js'
import {HeadWriter} from './head-writer.js'
import {HeadZeroer} from './head-zeroer.js'
import type {ReplicaDirectory} from './layer-chain.js'
import {LayerReader, type BlockStatus} from './layer-reader.js'
import type {LayerMeta} from './layer-meta.js'
import type {LayerStack} from './layer-stack.js'
import {OpenDirectory} from './open-directory.js'
import {RangeLock} from './range-lock.js'
import {RetiredFiles} from './retired-files.js'
import type {RevisionCounter} from './revision-counter.js'
import type {SnapshotSpec} from './snapshot.js'
import {SnapshotTaker} from './snapshot-taker.js'
import type {VolumeMeta} from './volume-meta.js'

/** What `openReplica` has acquired. */
export interface OpenedReplica {
  readonly directory: ReplicaDirectory
  readonly leftovers: readonly string[]
  readonly lock: DirectoryLock
  readonly stack: LayerStack
  readonly counter: RevisionCounter | undefined
  readonly disk: DiskSteps
  /** Something is left of a power cut that only an open after one looks for. */
  readonly staysDirty?: boolean
  readonly owner: Cleanup
}

export interface LayerUsage {
  /** File name of the layer. */
  readonly file: string
  /** Space on disk in bytes. */
  readonly allocatedBytes: number
  /** Last change of the data, in milliseconds since 1970. */
  readonly modifiedMs: number
}

/**
 * An open replica: one copy of a volume, to read and write. Offsets and lengths are bytes of any alignment; a range
 * outside the volume is a RangeError. Disk errors are IO or NO_SPACE, thrown by what is done at once and rejected by
 * what is not. After a failed flush, or when a failed write could not be taken back, everything fails with that reason and
 * volume.meta records it: the replica has lost data and must be rebuilt.
 *
 * A method that returns a promise or undefined has done its work when it returns undefined; this saves the small
 * requests the promise. Changes that overlap take effect in the order of the calls; a read beside them may see either.
 */
export class ReplicaVolume implements AsyncDisposable {
  readonly #opened: OpenedReplica
  readonly #directory: OpenDirectory
  readonly #gate: Gate
  readonly #flusher: Flusher
  readonly #locks = new RangeLock()
  readonly #reader: LayerReader
  readonly #writer: HeadWriter
  readonly #zeroer: HeadZeroer
  readonly #repairer: HeadRepairer
  readonly #atomic: HeadAtomicWriter
  #closing: Promise<void> | undefined
  readonly #retired: RetiredFiles
  readonly #snapshots: SnapshotTaker
  readonly #frozen: FrozenLayers

  constructor(opened: OpenedReplica) {
    const {stack, counter} = opened
    this.#opened = opened
    this.#directory = new OpenDirectory(opened.directory, opened.disk)
    this.#gate = new Gate(reason => {
      this.#recordFailure(reason)
    })
    this.#flusher = new Flusher(syncedFiles(opened), stack.head.path, this.#gate)
    this.#reader = new LayerReader(stack)
    this.#retired = new RetiredFiles(this.#reader)
    const context = {stack, counter, reader: this.#reader, locks: this.#locks, flusher: this.#flusher, gate: this.#gate}
    this.#writer = new HeadWriter(context)
    this.#zeroer = new HeadZeroer(context, this.#writer)
    this.#repairer = new HeadRepairer(context, this.#writer)
    this.#atomic = new HeadAtomicWriter(context, this.#writer, new AtomicJournal(opened.directory.path, opened.disk))
    this.#snapshots = new SnapshotTaker(context, this.#directory, this.#retired)
    this.#frozen = new FrozenLayers(context, this.#directory, this.#retired)
  }

  get sizeBytes(): number {
    return this.#opened.stack.sizeBytes
  }

  /** The directory as it is, but for the sizes of the layers, which are as they were found. */
  get directory(): ReplicaDirectory {
    return this.#directory.contents
  }

  /** Takes note of what the .meta of a layer says from now on. */
  describeLayer(file: string, meta: LayerMeta): void {
    this.#directory.describeLayer(file, meta)
  }

  /** What volume.meta says now. */
  get meta(): VolumeMeta {
    return this.#directory.meta
  }

  /** Grows with what is changed: somebody is using the volume. */
  get changes(): number {
    return this.#flusher.changes
  }

  /** Something has been written since it was opened. */
  get written(): boolean {
    return this.#flusher.touched
  }

  /** Files of interrupted operations that opening removed. */
  get leftovers(): readonly string[] {
    return this.#opened.leftovers
  }

  /** Why the replica no longer admits I/O, undefined while it does. */
  get failure(): LonghornError | undefined {
    return this.#gate.reason
  }

  /** Admits nothing any more and records why: the files cannot be trusted. Returns the reason that counts. */
  condemn(reason: LonghornError): LonghornError {
    return this.#gate.fail(reason)
  }

  /** The revision counter, undefined where there is none. */
  get revision(): number | undefined {
    return this.#opened.counter?.value
  }

  /** Continues the revision counter from another number. */
  set revision(value: number | undefined) {
    if (value !== undefined) this.#opened.counter?.set(value)
  }

  /** Layers below are still missing: it can be written, and not read. */
  get joining(): boolean {
    return this.#opened.stack.fetchBelow !== undefined
  }

  /** What was missing below is here: puts it under the layers that there are; see FrozenLayers. */
  complete(base: LayerStack, directory: ReplicaDirectory): Promise<void> {
    return this.#frozen.complete(base, directory)
  }

  /** Reads into `target` from `start`: at once when it is in memory, else in the thread pool. */
  read(target: Buffer, start: number, length: number, offset: number): Promise<void> | undefined {
    this.#admit()
    if (this.joining) throw new LonghornError('CONFLICT', `the replica in ${this.#directory.path} is being rebuilt and cannot be read yet`)
    return this.#reader.read(target, start, length, offset)
  }

  /** Reads at once, waiting for the disk if need be. */
  readSync(target: Buffer, start: number, length: number, offset: number): void {
    this.#admit()
    this.#reader.readSync(target, start, length, offset)
  }

  /** Reads at once if it is in memory, else returns false, with `target` in part overwritten. */
  tryReadCached(target: Buffer, start: number, length: number, offset: number): boolean {
    this.#admit()
    return this.#reader.tryReadCached(target, start, length, offset)
  }

  /**
   * Writes from `source`, which belongs to the write until it is done. `durable`: done when it survives a power cut.
   * `continued`: part of a request that was counted with its first part.
   */
  write(source: Buffer, start: number, length: number, offset: number, durable = false, continued = false): Promise<void> | undefined {
    return this.#writer.write(source, start, length, offset, durable, continued)
  }

  /** Writes all of `data` or nothing, whatever fails; see HeadAtomicWriter. */
  writeAtomic(data: Buffer, offset: number): Promise<void> {
    return this.#atomic.write(data, offset)
  }

  /** Makes good a write that a crash or power cut interrupted. The replica has just been opened, and nothing has been written. */
  finishAtomicWrite(write: JournalledWrite): Promise<void> {
    return this.#atomic.finish(write)
  }

  /** Makes a range read as zeros. `mayUnmap`: without keeping the space where that can be had. */
  writeZeroes(offset: number, length: number, mayUnmap: boolean, durable = false): Promise<void> {
    return this.#zeroer.writeZeroes(offset, length, mayUnmap, durable)
  }

  /** Gives up the content of the blocks wholly inside the range; resolves to the bytes given back. */
  discard(offset: number, length: number, durable = false): Promise<number> {
    return this.#zeroer.discard(offset, length, durable)
  }

  /** Rewrites what could not be read here; see HeadRepairer. */
  repair(data: Buffer, offset: number): Promise<number> {
    return this.#repairer.repair(data, offset)
  }

  /** Resolves when everything whose write was done before this call survives a power cut. */
  flush(): Promise<void> {
    return this.#flusher.flush()
  }

  /** Where a range has data, in order and without gaps. */
  status(offset: number, length: number): Generator<BlockStatus> {
    return this.#reader.status(offset, length)
  }

  /** What each layer of the live chain takes on disk, oldest first. */
  usage(): LayerUsage[] {
    return this.#opened.stack.files.map(({file, fd}) => {
      const {blocks, mtimeMs} = fstatSync(fd)
      return {file, allocatedBytes: blocks * 512, modifiedMs: mtimeMs}
    })
  }

  /** Does everything for a snapshot but the step that takes it, while the volume goes on being written; see SnapshotTaker. */
  prepareSnapshot(spec: SnapshotSpec): Promise<void> {
    return this.#snapshots.prepare(spec)
  }

  /** Takes back what prepareSnapshot() did, if it has not become a snapshot. */
  discardPrepared(): Promise<void> {
    return this.#snapshots.discard()
  }

  /** Freezes the volume as it is: what was done before this call is in the snapshot; see SnapshotTaker. */
  snapshot(spec: SnapshotSpec): Promise<void> {
    return this.#snapshots.take(spec)
  }

  /** Takes what lies below the head from the directory again, where other files have been put meanwhile; see FrozenLayers. */
  async reload(complete: boolean): Promise<void> {
    this.#admit()
    await this.#snapshots.discard()
    await this.#frozen.reload(complete)
  }

  /** Records durably that the layers below the head are not complete, or that they are. */
  async setRebuilding(rebuilding: boolean): Promise<void> {
    this.#admit()
    await this.#frozen.setRebuilding(rebuilding)
  }

  /** Two frozen layers have become one on disk, under the name of `upper`: goes on with that. */
  mergeLayers(lower: string, upper: string, meta: LayerMeta, sizeBytes: number): void {
    this.#frozen.merge(lower, upper, meta, sizeBytes)
  }

  /** A layer is gone from the disk, and nothing stood on it. */
  forgetLayer(gone: string): void {
    this.#directory.forgetLayer(gone)
  }

  /** The blocks in a range, which begins with one, that the head holds: whatever lies below them cannot be seen. */
  heldByHead({offset, length}: {readonly offset: number; readonly length: number}): {offset: number; length: number}[] {
    return heldByHead(this.#opened.stack, offset, length)
  }

  /** Resolves when the reads that are under way now are done. */
  readsSettled(): Promise<void> {
    return this.#reader.settled()
  }

  /** How the extents of a layer are found out. */
  get scanner(): ExtentScanner {
    return this.#opened.stack.scanner
  }

  /** How the files in the directory are changed. */
  get disk(): DiskSteps {
    return this.#directory.disk
  }

  /**
   * Finishes what has been admitted, flushes, records durably that the replica is clean, and gives everything back.
   * When the flush fails, or has failed before, the replica stays dirty and this rejects. Safe twice.
   */
  close(): Promise<void> {
    this.#closing ??= this.#shut(true)
    return this.#closing
  }

  /** Lets go without flushing, as if the process had died: the replica stays dirty. Waits for the thread pool only. */
  abandon(): Promise<void> {
    this.#closing ??= this.#shut(false)
    return this.#closing
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  async #shut(clean: boolean): Promise<void> {
    const failed = this.#gate.failed ? this.#gate.reason : undefined
    this.#gate.close(new LonghornError('CONFLICT', `the replica in ${this.#directory.path} is closed`))
    await using _owner = this.#opened.owner
    await this.#locks.drained()
    await this.#reader.idle()
    try {
      if (!clean) return
      // What cannot be removed is found by the next open, and is no reason to stay dirty.
      await this.#snapshots.discard().catch(() => undefined)
      if (failed !== undefined) throw failed
      await this.#flusher.sync()
      await this.#snapshots.settled()
      // What is missing, or may differ, is not made good by closing.
      if (this.joining || this.#opened.staysDirty === true) return
      await this.#directory.changeMeta({dirty: false})
    } finally {
      await this.#directory.metaSettled()
      await this.#atomic.close()
      this.#retired.close()
      this.#snapshots.close()
    }
  }

  #admit(): void {
    if (this.#gate.reason !== undefined) throw this.#gate.reason
  }

  #recordFailure(reason: LonghornError): void {
    // The disk has just failed, so this may fail as well: then all there is is the Dirty flag, which is set already.
    this.#directory.changeMeta({error: reason.message}).catch(() => undefined)
  }
}
