import {open} from 'node:fs/promises'
import {basename} from 'node:path'
import {forgetCached} from '../../lib/sys/page-cache.js'
import {LonghornError} from '../../lib/errors.js'
import {BLOCK_BYTES} from '../../protocol/scrub-units.js'
import {ioFailure} from '../io-failure.js'
import {DiskReader} from '../read-back.js'

/** Bytes for a place in a file; whole blocks, but for the last one of the file. */
export interface Run {
  readonly offset: number
  readonly bytes: Buffer
}

/** A block that could not be written, or not be read back. */
export interface Refused {
  readonly offset: number
  /** IO, NO_SPACE. */
  readonly error: LonghornError
}

/** A file that is rewritten, as Node's FileHandle is one. */
export interface WritableFile {
  readonly fd: number
  write(bytes: Buffer, from: number, length: number, position: number): Promise<{readonly bytesWritten: number}>
  datasync(): Promise<void>
}

/** What gives back what is on its disk. */
export interface ReadableDisk {
  read(length: number, offset: number): Promise<Buffer>
}

/**
 * Writes runs to a file, durably, with one sync for all of them, and reads each back from the disk. What fails together is done again apart: the runs one
 * by one, and of a run that fails its blocks. Gives the blocks that fail alone; all others are on the disk. Throws Node's errors when the file cannot be opened.
 */
export async function rewriteRuns(path: string, runs: readonly Run[]): Promise<Refused[]> {
  await using file = await open(path, 'r+')
  await using disk = await DiskReader.open(path)
  return await new RunRewriter(basename(path), file, disk).rewrite(runs)
}

export class RunRewriter {
  readonly #name: string
  readonly #file: WritableFile
  readonly #disk: ReadableDisk

  constructor(name: string, file: WritableFile, disk: ReadableDisk) {
    this.#name = name
    this.#file = file
    this.#disk = disk
  }

  /** As rewriteRuns(). */
  async rewrite(runs: readonly Run[]): Promise<Refused[]> {
    try {
      for (const {offset, bytes} of runs) {
        for (let done = 0; done < bytes.length; ) done += (await this.#file.write(bytes, done, bytes.length - done, offset + done)).bytesWritten
      }
      // Which of them a sync that fails is about, nobody knows.
      await this.#file.datasync()
    } catch (error) {
      return this.#apart(runs, error)
    }
    const refused: Refused[] = []
    for (const run of runs) {
      const failure = await this.#readBack(run)
      if (failure !== undefined) refused.push(...(await this.#apart([run], failure.reason)))
    }
    return refused
  }

  async #readBack({offset, bytes}: Run): Promise<{readonly reason: unknown} | undefined> {
    try {
      if ((await this.#disk.read(bytes.length, offset)).equals(bytes)) return undefined
    } catch (error) {
      return {reason: error}
    }
    return {reason: new LonghornError('IO', `${this.#name} gives back something else than what was written to it: its disk is failing`)}
  }

  async #apart(runs: readonly Run[], failure: unknown): Promise<Refused[]> {
    const parts = runs.length > 1 ? runs : blocksOf(runs[0]!)
    if (parts.length === 1) return [this.#refused(parts[0]!, failure)]
    const refused: Refused[] = []
    for (const part of parts) refused.push(...(await this.rewrite([part])))
    return refused
  }

  /** The kernel may hold in memory what the disk did not take: nobody is to read that and believe it. */
  #refused({offset, bytes}: Run, failure: unknown): Refused {
    forgetCached(this.#file.fd, offset, bytes.length)
    return {offset, error: ioFailure(`healing ${bytes.length} bytes at ${offset} of ${this.#name}`, failure)}
  }
}

function blocksOf({offset, bytes}: Run): Run[] {
  const blocks: Run[] = []
  for (let at = 0; at < bytes.length; at += BLOCK_BYTES) blocks.push({offset: offset + at, bytes: bytes.subarray(at, at + BLOCK_BYTES)})
  return blocks
}
