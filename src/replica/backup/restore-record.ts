import {readFile} from 'node:fs/promises'
import {join} from 'node:path'
import {errnoOf, LonghornError} from '../../lib/errors.js'
import type {Log} from '../../lib/log.js'
import {realDisk} from '../disk-steps.js'
import {replaceFile} from '../durable-file.js'
import {ioFailure} from '../io-failure.js'
import type {ReplicaDirectory} from '../layer-chain.js'
import {isLayerName} from '../layer-names.js'
import type {ReplicaVolume} from '../replica-volume.js'

/** The file of the record; ours, upstream does not look at it. */
export const RESTORE_FILE = 'restore'
/** What is being restored, until it is a layer. What is left of it is used by the next attempt. */
export const PARTIAL_FILE = 'volume-delta-restore.img'

/** A backup, and the layer (a file name) that it is restored to. */
export interface RestoredLayer {
  /** `STORE?backup=NAME&volume=VOL`, without secrets. */
  readonly backup: string
  readonly layer: string
}

/** `restore`: JSON of `{Begun, Restored}`, each `{Backup, Layer}` or null. */
interface RestoreRecord {
  /** One that is not in its place: it runs, or has failed. */
  readonly begun: RestoredLayer | undefined
  /** The last one that is complete. */
  readonly restored: RestoredLayer | undefined
}

const NOTHING: RestoreRecord = {begun: undefined, restored: undefined}

/** What a replica remembers of the backups that were restored into it, also over a crash. */
export class RestoreKeeper {
  #record = NOTHING
  /** A restore runs in this process, or waits to be finished. */
  running = false

  constructor(
    readonly directory: string,
    readonly log: Log,
  ) {}

  /**
   * Reads the record. A restore whose layer is part of the live chain is complete, whatever the record says: that is its commit. A record
   * from before another program changed the replica says nothing any more. CORRUPT when it cannot be read.
   */
  async load(found: ReplicaDirectory | undefined): Promise<void> {
    const record = await readRecord(this.directory)
    if (found?.sealed === false && record !== NOTHING) {
      this.log.warn('another program has changed this replica: what was recorded of restored backups does not count any more')
      return this.forget()
    }
    this.#record = record
    if (record.begun !== undefined && isLive(found, record.begun.layer)) await this.complete()
  }

  get begun(): RestoredLayer | undefined {
    return this.#record.begun
  }

  /** The last one that is complete, as long as its layer is part of the live chain. */
  restored(directory: ReplicaDirectory | undefined): RestoredLayer | undefined {
    const {restored} = this.#record
    return restored !== undefined && isLive(directory, restored.layer) ? restored : undefined
  }

  /** Records durably that the volume is about to become something else. */
  begin(begun: RestoredLayer): Promise<void> {
    return this.#write({...this.#record, begun})
  }

  /** What was begun is in its place. */
  complete(): Promise<void> {
    return this.#write({begun: undefined, restored: this.#record.begun})
  }

  /** The layer of the last one has another name. */
  renamed(layer: string): Promise<void> {
    const {restored} = this.#record
    return this.#write({...this.#record, restored: restored && {...restored, layer}})
  }

  /** What was begun is given up; what has been fetched of it goes. */
  async giveUp(): Promise<void> {
    await this.#removePartial()
    if (this.#record.begun !== undefined) await this.#write({...this.#record, begun: undefined})
  }

  /** Gives back the space of what has been fetched; it stays recorded that it was begun. */
  dropFetched(): Promise<void> {
    return this.#removePartial()
  }

  /** Forgets everything: the replica becomes a copy of others. */
  async forget(): Promise<void> {
    await this.#removePartial()
    this.#record = NOTHING
    await changing(this.directory, async () => {
      await realDisk.remove(join(this.directory, RESTORE_FILE))
      await realDisk.syncDirectory(this.directory)
    })
  }

  async #write(record: RestoreRecord): Promise<void> {
    const fields = (one: RestoredLayer | undefined): object | null => (one === undefined ? null : {Backup: one.backup, Layer: one.layer})
    const text = `${JSON.stringify({Begun: fields(record.begun), Restored: fields(record.restored)})}\n`
    await changing(this.directory, () => replaceFile(join(this.directory, RESTORE_FILE), text))
    this.#record = record
  }

  async #removePartial(): Promise<void> {
    await changing(this.directory, () => realDisk.remove(join(this.directory, PARTIAL_FILE)))
  }
}

/** The frozen layers of the live chain above which nothing was written, from the top; the last one may hold data itself. */
export function unwrittenLayers(volume: ReplicaVolume): string[] {
  const layers = volume.usage().reverse()
  const written = layers.findIndex(({allocatedBytes}) => allocatedBytes > 0)
  return layers.slice(1, written === -1 ? undefined : written + 1).map(({file}) => file)
}

function isLive(directory: ReplicaDirectory | undefined, layer: string): boolean {
  return directory?.chain.some(({file}) => file === layer) === true
}

async function readRecord(directory: string): Promise<RestoreRecord> {
  const path = join(directory, RESTORE_FILE)
  const text = await readFile(path, 'utf8').catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT') return undefined
    throw ioFailure(`reading ${path}`, error)
  })
  if (text === undefined) return NOTHING
  try {
    const {Begun, Restored} = JSON.parse(text) as {Begun?: unknown; Restored?: unknown}
    return {begun: toRestored(Begun), restored: toRestored(Restored)}
  } catch (error) {
    throw new LonghornError('CORRUPT', `${path} cannot be read: remove it, and restore the backup again if one was being restored`, {path}, {cause: error})
  }
}

function toRestored(value: unknown): RestoredLayer | undefined {
  if (value === null || value === undefined) return undefined
  const {Backup: backup, Layer: layer} = value as {Backup?: unknown; Layer?: unknown}
  if (typeof backup !== 'string' || typeof layer !== 'string' || !isLayerName(layer)) throw new TypeError('not a restored layer')
  return {backup, layer}
}

async function changing(directory: string, work: () => Promise<void>): Promise<void> {
  try {
    await work()
  } catch (error) {
    throw ioFailure(`recording in ${directory} what is restored`, error)
  }
}
