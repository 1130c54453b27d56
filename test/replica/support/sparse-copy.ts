import {closeSync, constants, fstatSync, ftruncateSync, linkSync, lstatSync, mkdirSync, openSync, readdirSync, readSync, rmSync, writeSync} from 'node:fs'
import {join} from 'node:path'
import {errnoOf} from '../../../src/lib/errors.js'
import {scannerFor} from '../../../src/lib/sys/file-extents.js'

export const BLOCK = 4096

/** What a file holds: its size, and the blocks of 4096 bytes that are no holes. A block past the end of the file is filled with zeros. */
export interface FileImage {
  readonly size: number
  readonly blocks: ReadonlyMap<number, Buffer>
}

export const EMPTY_IMAGE: FileImage = {size: 0, blocks: new Map()}

/** Reads an open file as it is at this moment. */
export function imageOf(fd: number): FileImage {
  const {size} = fstatSync(fd)
  const blocks = new Map<number, Buffer>()
  if (size === 0) return {size, blocks}
  scannerFor(fd).scan(fd, 0, size, (offset, length) => {
    const first = Math.floor(offset / BLOCK)
    const count = Math.ceil((offset + length) / BLOCK) - first
    const bytes = Buffer.alloc(count * BLOCK)
    readSync(fd, bytes, 0, bytes.length, first * BLOCK)
    for (let index = 0; index < count; index++) blocks.set(first + index, bytes.subarray(index * BLOCK, (index + 1) * BLOCK))
  }, true)
  return {size, blocks}
}

/** Reads the file at a path as it is at this moment. */
export function imageAt(path: string): FileImage {
  const fd = openSync(path, 'r')
  try {
    return imageOf(fd)
  } finally {
    closeSync(fd)
  }
}

/** Creates a file with this content, and with its holes. */
export function writeImage(path: string, {size, blocks}: FileImage): void {
  const fd = openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o644)
  try {
    for (const [block, bytes] of blocks) writeSync(fd, bytes, 0, Math.min(BLOCK, size - block * BLOCK), block * BLOCK)
    ftruncateSync(fd, size)
  } finally {
    closeSync(fd)
  }
}

/**
 * Copies a directory of files as it is at this moment, with holes and second names: what a process leaves that is killed now. What that
 * has begun in its thread pool may still come to its end meanwhile: a name that goes away under the copy begins it anew.
 */
export function copyDirectory(from: string, to: string): void {
  for (let left = 10; ; left--) {
    try {
      copyOnce(from, to)
      return
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT' || left === 0) throw error
      rmSync(to, {recursive: true})
    }
  }
}

function copyOnce(from: string, to: string): void {
  mkdirSync(to, 0o700)
  const known = new Map<bigint, string>()
  for (const name of readdirSync(from)) {
    const {ino} = lstatSync(join(from, name), {bigint: true})
    const twin = known.get(ino)
    if (twin === undefined) writeImage(join(to, name), imageAt(join(from, name)))
    else linkSync(twin, join(to, name))
    known.set(ino, join(to, name))
  }
}
