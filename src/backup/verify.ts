import {isKind, LonghornError, messageOf} from '../lib/errors.js'
import {BlockMemory} from './block-memory.js'
import {listBackups, loadBackup, openBackup, type ReadableBackup} from './catalog.js'
import {isFinished} from './format/backup-record.js'
import {backupKey} from './format/store-layout.js'
import {inParallel} from './parallel.js'
import {offsetsBySum, readBlock} from './read-block.js'
import type {BackupStore} from './store/backup-store.js'
import {ProgressCounter, type OnProgress} from './transfer-progress.js'

export interface VerifyOptions {
  readonly volume: string
  /** All of the volume's when it is left out. */
  readonly backup?: string | undefined
  /** Which share of the blocks is read, 0 to 1; records are always checked. */
  readonly sample: number
  readonly concurrency: number
  /** Chooses the sample; from 0 up to 1. */
  readonly random?: () => number
  readonly onProgress?: OnProgress | undefined
  readonly signal?: AbortSignal | undefined
}

/** Something that cannot be restored. */
export interface Finding {
  readonly backup: string
  /** '' for the record itself. */
  readonly block: string
  /** Where in the volume, in bytes. */
  readonly offsets: readonly number[]
  readonly problem: string
}

export interface Verified {
  readonly backups: number
  /** Backups that are not finished, and were not looked at. */
  readonly unfinished: readonly string[]
  /** Blocks that the backups have, each counted once, and those of them that were read. */
  readonly blocks: number
  readonly read: number
  readonly objectBytes: number
  readonly findings: readonly Finding[]
}

interface Wanted {
  readonly backup: ReadableBackup
  /** Which backups have it, and where. */
  readonly uses: {readonly name: string; readonly offsets: readonly number[]}[]
}

/**
 * Reads blocks of backups back, decompresses them and checks their sums. A block that several backups share is read once. What is missing or
 * damaged is reported for every backup that it belongs to; a store that cannot be read is an error and no finding.
 */
export async function verifyBackups(store: BackupStore, options: VerifyOptions): Promise<Verified> {
  const {volume, sample, random = Math.random, signal} = options
  const names = options.backup === undefined ? await listBackups(store, volume, signal) : [options.backup]
  if (names.length === 0) throw new LonghornError('NOT_FOUND', `cannot find backups of volume ${volume} in backupstore ${store.url}`)
  const findings: Finding[] = []
  const unfinished: string[] = []
  const wanted = new Map<string, Wanted>()
  for (const name of names) {
    const backup = await openForCheck(store, volume, name, findings, unfinished, signal)
    if (backup === undefined) continue
    for (const [sum, offsets] of await offsetsBySum(backup.record.blocks)) {
      // The same sum in blocks of another size cannot be; in another method it is one object, and either reads it.
      const known = wanted.get(sum)
      if (known === undefined) wanted.set(sum, {backup, uses: [{name, offsets}]})
      else known.uses.push({name, offsets})
    }
  }
  const chosen = [...wanted].filter(() => sample >= 1 || random() < sample)
  // Of something, at least something.
  if (chosen.length === 0) chosen.push(...[...wanted].slice(0, 1))
  const counter = new ProgressCounter(chosen.length, options.onProgress)
  const memories: Record<number, BlockMemory> = {}
  await inParallel(chosen, options.concurrency, async ([sum, {backup, uses}], signal) => {
    const memory = (memories[backup.blockBytes] ??= new BlockMemory(backup.blockBytes))
    const rooms = memory.take()
    const result = await readBlock(store, backup, sum, signal, rooms).catch(asFinding)
    if (typeof result === 'string') findings.push(...uses.map(({name, offsets}) => ({backup: name, block: sum, offsets, problem: result})))
    counter.add(1, backup.blockBytes, typeof result === 'string' ? 0 : result.content.length)
    memory.give(rooms)
  }, signal)
  const {objectBytes} = counter.progress
  const removed = await removedMeanwhile(store, volume, findings, signal)
  return {
    backups: names.length - unfinished.length - removed.size,
    unfinished,
    blocks: wanted.size,
    read: chosen.length,
    objectBytes,
    findings: findings.filter(({backup}) => !removed.has(backup) || backup === options.backup),
  }
}

/** Of a backup that somebody has removed meanwhile, blocks may be missing. */
async function removedMeanwhile(store: BackupStore, volume: string, findings: readonly Finding[], signal?: AbortSignal): Promise<Set<string>> {
  const removed = new Set<string>()
  for (const name of new Set(findings.map(({backup}) => backup))) {
    if ((await store.head(backupKey(volume, name), signal)) === undefined) removed.add(name)
  }
  return removed
}

async function openForCheck(store: BackupStore, volume: string, name: string, findings: Finding[], unfinished: string[], signal?: AbortSignal): Promise<ReadableBackup | undefined> {
  try {
    if (isFinished(await loadBackup(store, volume, name, signal))) return await openBackup(store, volume, name, signal)
    unfinished.push(name)
  } catch (error) {
    findings.push({backup: name, block: '', offsets: [], problem: asFinding(error)})
  }
  return undefined
}

function asFinding(error: unknown): string {
  if (['NOT_FOUND', 'CORRUPT', 'UNSUPPORTED'].some(kind => isKind(error, kind as 'CORRUPT'))) return messageOf(error)
  throw error
}
