import {open, type FileHandle} from 'node:fs/promises'
import {join} from 'node:path'
import {errnoOf, LonghornError} from '../../lib/errors.js'
import {scannerFor} from '../../lib/sys/file-extents.js'
import {ioFailure} from '../io-failure.js'
import {readReplicaDirectory} from '../layer-chain.js'
import {openVolumeView, type VolumeView} from '../open-replica.js'
import {dataIn, WINDOW_BYTES} from '../purge/copy-data.js'
import type {Interval} from './exchange.js'
import type {TransferFile} from './transfer-names.js'

export interface SourceInterval extends Interval {
  readonly data: boolean
}

/** What is sent: it does not change while it is. */
export interface SendSource {
  /** For errors and the log. */
  readonly name: string
  readonly sizeBytes: number
  /** Where it has data and where holes, ascending and without gaps, neighbours of a kind as one. */
  intervals(): AsyncIterable<SourceInterval>
  /** Fills `target` from `offset` on. */
  read(target: Buffer, offset: number): Promise<void>
  close(): Promise<void>
}

/** A file of a replica as it is. NOT_FOUND when it is not there. */
export async function openFileSource(directory: string, {name, kind}: TransferFile): Promise<SendSource> {
  const path = join(directory, name)
  const file = await open(path, 'r').catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT') throw new LonghornError('NOT_FOUND', `${path} does not exist`, {}, {cause: error})
    throw ioFailure(`opening ${path}`, error)
  })
  try {
    const {size} = await file.stat()
    // Extents are known for what is on the disk.
    if (kind === 'data') await file.datasync()
    return {
      name: path,
      sizeBytes: size,
      intervals: () => merged(kind === 'data' ? fileIntervals(file, size) : whole(size)),
      read: (target, offset) => readFully(file, target, offset, path),
      close: () => file.close(),
    }
  } catch (error) {
    await file.close()
    throw ioFailure(`reading ${path}`, error)
  }
}

/** The volume as it was at a snapshot (a file name), in one piece. NOT_FOUND when there is none. */
export async function openViewSource(directory: string, layer: string): Promise<SendSource> {
  const {volume} = await readReplicaDirectory(directory)
  const view = await openVolumeView(directory, layer)
  return {
    name: `${join(directory, layer)} with what lies below`,
    sizeBytes: volume.sizeBytes,
    intervals: () => merged(viewIntervals(view, volume.sizeBytes)),
    read: async (target, offset) => view.reader.read(target, 0, target.length, offset),
    close: () => view.close(),
  }
}

async function* fileIntervals(file: FileHandle, size: number): AsyncGenerator<SourceInterval> {
  const scanner = scannerFor(file.fd)
  for (let offset = 0; offset < size; offset += WINDOW_BYTES) {
    const window = {offset, length: Math.min(WINDOW_BYTES, size - offset)}
    let at = offset
    for (const range of dataIn(scanner, file.fd, window)) {
      if (range.offset > at) yield {begin: at, end: range.offset, data: false}
      at = range.offset + range.length
      yield {begin: range.offset, end: at, data: true}
    }
    if (at < offset + window.length) yield {begin: at, end: offset + window.length, data: false}
  }
}

async function* viewIntervals({reader, sizeBytes}: VolumeView, size: number): AsyncGenerator<SourceInterval> {
  for (const {offset, length, data} of reader.status(0, sizeBytes)) yield {begin: offset, end: offset + length, data}
  // The snapshot is from before the volume was expanded.
  if (size > sizeBytes) yield {begin: sizeBytes, end: size, data: false}
}

async function* whole(size: number): AsyncGenerator<SourceInterval> {
  if (size > 0) yield {begin: 0, end: size, data: true}
}

async function* merged(intervals: AsyncIterable<SourceInterval>): AsyncGenerator<SourceInterval> {
  let last: SourceInterval | undefined
  for await (const next of intervals) {
    if (last?.data === next.data) last = {...last, end: next.end}
    else {
      if (last !== undefined) yield last
      last = next
    }
  }
  if (last !== undefined) yield last
}

async function readFully(file: FileHandle, target: Buffer, offset: number, path: string): Promise<void> {
  try {
    for (let done = 0; done < target.length; ) {
      const {bytesRead} = await file.read(target, done, target.length - done, offset + done)
      if (bytesRead === 0) throw new LonghornError('CONFLICT', `${path} has become shorter while it was sent`)
      done += bytesRead
    }
  } catch (error) {
    throw ioFailure(`reading ${target.length} bytes at ${offset} of ${path}`, error)
  }
}
