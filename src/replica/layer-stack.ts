import {fdatasync} from 'node:fs'
import {setImmediate as nextTurn} from 'node:timers/promises'
import {promisify} from 'node:util'
import {Cleanup} from '../lib/cleanup.js'
import {scannerFor, type ExtentScanner} from '../lib/sys/file-extents.js'
import {LonghornError} from '../lib/errors.js'
import {BelowHead} from './below-head.js'
import {checkBlockSize, checkPunching} from './file-system.js'
import type {Layer} from './layer-chain.js'
import {openLayerFile, type LayerFile} from './layer-file.js'
import {BLOCK_BYTES, MAX_LAYERS, NO_LAYER, SectorMap} from './sector-map.js'

const dataSynced = promisify(fdatasync)

/** How much of a file is asked for its extents before others get their turn. */
const SLICE_BYTES = 1024 ** 3

/**
 * The open layers of a volume and who holds what. Owns the file descriptors.
 *
 * Layers keep their numbers as long as it is open, and the map is never renumbered: a snapshot puts a head on top, and two
 * layers that a purge has made one are one file under both numbers.
 */
export class LayerStack {
  readonly scanner: ExtentScanner
  /** What lies below the layers that are here, while they are not all here: a rebuild. `length` bytes at `offset`. */
  fetchBelow: ((offset: number, length: number) => Promise<Buffer>) | undefined
  #sizeBytes: number
  readonly #files: LayerFile[]
  #head: LayerFile
  #map: SectorMap
  #below: BelowHead

  constructor(
    sizeBytes: number,
    files: readonly LayerFile[],
    map: SectorMap,
    below: BelowHead,
  ) {
    this.#sizeBytes = sizeBytes
    this.#map = map
    this.scanner = below.scanner
    this.#files = [...files]
    this.#head = files.at(-1)!
    this.#below = below
  }

  /** Size of the volume. */
  get sizeBytes(): number {
    return this.#sizeBytes
  }

  /** Who holds each block. */
  get map(): SectorMap {
    return this.#map
  }

  /** The volume becomes larger. What is new reads as zeros: every layer ends before it. */
  grow(sizeBytes: number): void {
    this.map.grow(sizeBytes)
    this.#sizeBytes = sizeBytes
  }

  /** Layer number n is `files[n - 1]`; the head is the last one. */
  get files(): readonly LayerFile[] {
    return this.#files
  }

  get head(): LayerFile {
    return this.#head
  }

  get headNumber(): number {
    return this.#files.length
  }

  get below(): BelowHead {
    return this.#below
  }

  /**
   * Puts an empty head on top. `frozen` is the head so far, opened for reading under its new name.
   * Returns its old descriptor, which reads in flight still use: the caller closes it.
   */
  push(frozen: LayerFile, head: LayerFile): LayerFile {
    if (this.headNumber === MAX_LAYERS) throw new LonghornError('UNSUPPORTED', `a replica cannot have more than ${MAX_LAYERS} layers while it is open`)
    const old = this.#head
    this.#files.splice(-1, 1, frozen, head)
    this.#head = head
    this.#below = new BelowHead(this.map, this.#files.slice(0, -1), this.scanner, this.#below.incomplete)
    return old
  }

  /** Makes every number that stood for one of `merged` stand for `file`. Their descriptors are the caller's to close. */
  merge(merged: readonly LayerFile[], file: LayerFile): void {
    for (const [index, layer] of this.#files.entries()) {
      if (merged.includes(layer)) this.#files[index] = file
    }
    this.#below = new BelowHead(this.map, [...new Set(this.#files.slice(0, -1))], this.scanner, this.#below.incomplete)
  }

  /** Puts the layers below that were not here under these. Takes the files of `base`; nothing may be changing the head. */
  complete(base: LayerStack): void {
    const {map} = base
    const below = base.#files.length
    if (base.sizeBytes < this.#sizeBytes) map.grow(this.#sizeBytes)
    this.#overlay(map, below, number => number < this.headNumber)
    const files = [...base.#files, ...this.#files]
    this.#below = new BelowHead(map, [...new Set(files.slice(0, -1))], this.scanner, false)
    this.#overlay(map, below, number => number === this.headNumber)
    this.#files.splice(0, this.#files.length, ...files)
    this.#map = map
    this.fetchBelow = undefined
  }

  /** Marks in `map` what some of these layers hold, under numbers that are `shift` higher. */
  #overlay(map: SectorMap, shift: number, wanted: (layer: number) => boolean): void {
    const {blocks} = this.#map
    for (let block = 0; block < blocks; ) {
      const run = this.#map.runLength(block, blocks - block)
      const layer = this.#map.lookup(block)
      if (layer !== NO_LAYER && wanted(layer)) map.set(block, run, shift + layer)
      block += run
    }
  }

  /**
   * Puts the head on other layers: `frozen`, oldest first, whose holders `map` has. The head keeps what it holds.
   * Returns the files of the layers before, which reads in flight still use: the caller closes them.
   */
  replaceBelow(frozen: readonly LayerFile[], map: SectorMap): LayerFile[] {
    const head = this.#head
    const number = this.headNumber
    const before = new Set(this.#files.slice(0, -1))
    const below = new BelowHead(map, frozen, this.scanner, this.#below.incomplete)
    for (let block = 0; block < this.#map.blocks; ) {
      const run = this.#map.runLength(block, this.#map.blocks - block)
      if (this.#map.lookup(block) === number) map.set(block, run, frozen.length + 1)
      block += run
    }
    this.#files.splice(0, this.#files.length, ...frozen, head)
    this.#map = map
    this.#below = below
    return [...before]
  }

  /** Whether nothing may be concluded from a hole below the head; see StackOptions. */
  setIncomplete(incomplete: boolean): void {
    // The map has the head in it as well: more segments than need be are asked for what lies below, never fewer.
    this.#below = new BelowHead(this.#map, [...new Set(this.#files.slice(0, -1))], this.scanner, incomplete)
  }

  close(): void {
    for (const file of new Set(this.#files)) file.close()
  }
}

export interface StackOptions {
  /** Open the newest layer for writing. */
  readonly writable: boolean
  /**
   * Everything stopped without a close: in this many of the newest layers what was never written does not count. A file system may have
   * given space to a write that a power cut then took; it reads as zeros, and would hide what lies below.
   */
  readonly doubtful?: number
  /** The layers below are not complete yet (a rebuild): nothing may be concluded from a hole in them. */
  readonly incomplete?: boolean
}

/**
 * Opens the layers of `chain` (oldest first) and finds out from their extents which layer holds each block.
 * UNSUPPORTED on a file system that cannot keep apart what a block of 4096 bytes hides and what it does not.
 */
export async function openLayerStack(
  directory: string,
  chain: readonly Layer[],
  sizeBytes: number,
  options: StackOptions,
): Promise<LayerStack> {
  await using undo = new Cleanup()
  await checkBlockSize(directory)
  const newest = chain.at(-1)
  const files = chain.map(layer => undo.add(openLayerFile(directory, layer, options.writable && layer === newest)))
  const head = files.at(-1)
  if (head === undefined) throw new Error('a chain has at least one layer')
  if (options.writable) checkPunching(head, sizeBytes)
  const scanner = scannerFor(head.fd)
  const map = new SectorMap(sizeBytes)
  const frozen = files.slice(0, -1)
  const sure = files.length - (options.doubtful ?? 0)
  for (const [index, file] of frozen.entries()) addLayer(map, scanner, file, index + 1, index >= sure)
  const below = new BelowHead(map, frozen, scanner, options.incomplete ?? false)
  addLayer(map, scanner, head, files.length, files.length > sure)
  undo.move()
  return new LayerStack(sizeBytes, files, map, below)
}

/**
 * Opens the frozen layers of `chain` (oldest first, without its head) beside an open volume, and finds out who holds what, a slice
 * at a time: I/O goes on meanwhile. Closed again when that fails.
 */
export async function loadFrozenLayers(directory: string, chain: readonly Layer[], sizeBytes: number, scanner: ExtentScanner): Promise<{files: LayerFile[]; map: SectorMap}> {
  await using undo = new Cleanup()
  const files = chain.slice(0, -1).map(layer => undo.add(openLayerFile(directory, layer, false)))
  const map = new SectorMap(sizeBytes)
  for (const [index, file] of files.entries()) {
    await dataSynced(file.fd)
    const end = Math.min(file.sizeBytes, map.blocks * BLOCK_BYTES)
    for (let offset = 0; offset < end; offset += SLICE_BYTES) {
      scanInto(map, scanner, file, index + 1, {offset, length: Math.min(SLICE_BYTES, end - offset)}, false)
      await nextTurn()
    }
  }
  undo.move()
  return {files, map}
}

/** Puts a layer on top of the map. Extents are rounded outward: whoever holds part of a block holds the block. */
function addLayer(map: SectorMap, scanner: ExtentScanner, file: LayerFile, number: number, doubtful: boolean): void {
  const length = Math.min(file.sizeBytes, map.blocks * BLOCK_BYTES)
  if (doubtful) scanner.scanWritten(file.fd, 0, length, marker(map, number))
  else scanInto(map, scanner, file, number, {offset: 0, length}, true)
}

function scanInto(map: SectorMap, scanner: ExtentScanner, file: LayerFile, number: number, range: {offset: number; length: number}, sync: boolean): void {
  scanner.scan(file.fd, range.offset, range.length, marker(map, number), sync)
}

function marker(map: SectorMap, number: number): (offset: number, length: number) => void {
  return (offset, length) => {
    const first = Math.floor(offset / BLOCK_BYTES)
    map.set(first, Math.ceil((offset + length) / BLOCK_BYTES) - first, number)
  }
}
