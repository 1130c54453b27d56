import {existsSync, linkSync, mkdtempSync, readFileSync, renameSync, rmSync, rmdirSync, writeFileSync} from 'node:fs'
import {basename, dirname, join} from 'node:path'
import {realDisk, type DiskSteps} from '../../../src/replica/disk-steps.js'

/** What the caller sees of the stop, or its cause. */
class Stopped extends Error {
  override readonly name = 'Stopped'
}

/** True when an operation ended because the machine stopped. */
function isStopped(error: unknown): boolean {
  return error instanceof Stopped || (error instanceof Error && error.cause instanceof Stopped)
}

/** Runs an operation on a disk; true when it stopped on the way. */
export async function stops(operation: Promise<unknown>): Promise<boolean> {
  try {
    await operation
    return false
  } catch (error) {
    if (isStopped(error)) return true
    throw error
  }
}

/**
 * A disk on a machine that stops at the n-th step (from 0), in the middle of it. Afterwards `losePower` takes back names that
 * were never synced, as a power cut may.
 */
export class FaultyDisk implements DiskSteps {
  steps = 0
  stopped = false
  /** How to take back each change of a name that is not on disk yet, with the directory it is in. */
  #unsynced: {directory: string; undo: () => void}[] = []

  constructor(readonly stopAt: number) {}

  /** How many names a power cut now could lose. */
  get unsynced(): number {
    return this.#unsynced.length
  }

  /** Takes back those unsynced changes whose bit is set in `mask`, newest first. */
  losePower(mask: number): void {
    for (const [index, change] of [...this.#unsynced.entries()].reverse()) {
      if ((mask & (1 << index)) !== 0) change.undo()
    }
  }

  async makeDirectory(path: string, mode: number): Promise<void> {
    this.#step()
    await realDisk.makeDirectory(path, mode)
    this.#remember(path, () => {
      if (existsSync(path)) rmdirSync(path)
    })
  }

  async createSparse(path: string, sizeBytes: number, mode: number): Promise<void> {
    this.#step(() => {
      writeFileSync(path, '', {flag: 'wx'})
    })
    await realDisk.createSparse(path, sizeBytes, mode)
    this.#remember(path, () => {
      rmSync(path, {force: true})
    })
  }

  async writeSynced(path: string, content: string | Uint8Array, mode: number): Promise<void> {
    const before = contentOf(path)
    this.#step(() => {
      writeFileSync(path, content.slice(0, content.length / 2))
    })
    await realDisk.writeSynced(path, content, mode)
    this.#remember(path, () => {
      restore(path, before)
    })
  }

  async patchSynced(path: string, content: string, position: number): Promise<void> {
    this.#step()
    await realDisk.patchSynced(path, content, position)
  }

  async rename(from: string, to: string): Promise<void> {
    this.#step()
    const replaced = existsSync(to) ? keep(to) : undefined
    await realDisk.rename(from, to)
    this.#remember(to, () => {
      if (!existsSync(to)) return
      renameSync(to, from)
      if (replaced !== undefined) renameSync(replaced, to)
    })
  }

  async link(from: string, to: string): Promise<void> {
    this.#step()
    await realDisk.link(from, to)
    this.#remember(to, () => {
      rmSync(to, {force: true})
    })
  }

  async remove(path: string): Promise<void> {
    this.#step()
    if (!existsSync(path)) return
    const kept = keep(path)
    await realDisk.remove(path)
    this.#remember(path, () => {
      if (existsSync(dirname(path))) renameSync(kept, path)
    })
  }

  async syncDirectory(path: string): Promise<void> {
    this.#step()
    await realDisk.syncDirectory(path)
    this.#unsynced = this.#unsynced.filter(change => change.directory !== path)
  }

  #step(halfDone?: () => void): void {
    if (this.stopped) throw new Stopped()
    if (this.steps === this.stopAt) {
      this.stopped = true
      halfDone?.()
      throw new Stopped(`at step ${this.stopAt}`)
    }
    this.steps += 1
  }

  #remember(path: string, undo: () => void): void {
    this.#unsynced.push({directory: dirname(path), undo})
  }
}

/** Gives a file a second name, outside its directory, from which it can come back with its holes. */
function keep(path: string): string {
  const kept = join(mkdtempSync(join(dirname(dirname(path)), 'kept-')), basename(path))
  linkSync(path, kept)
  return kept
}

function contentOf(path: string): Buffer | undefined {
  return existsSync(path) ? readFileSync(path) : undefined
}

function restore(path: string, content: Buffer | undefined): void {
  if (!existsSync(dirname(path))) return
  if (content === undefined) rmSync(path, {force: true})
  else writeFileSync(path, content)
}
