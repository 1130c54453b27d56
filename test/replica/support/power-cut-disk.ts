// A disk that forgets: what a power cut may leave of the files in some directories.
import fs, {closeSync, fstatSync, linkSync, lstatSync, mkdirSync, openSync, readdirSync, readlinkSync} from 'node:fs'
import type {FileHandle} from 'node:fs/promises'
import {syncBuiltinESMExports} from 'node:module'
import {basename, dirname, join, resolve} from 'node:path'
import type {Random} from './random.js'
import {BLOCK, EMPTY_IMAGE, imageAt, imageOf, writeImage, type FileImage} from './sparse-copy.js'

/** A file, by whatever names. */
interface Tracked {
  /** What is on the disk for certain. */
  durable: FileImage
  /** What it was when its last name went. */
  last: FileImage | undefined
}

type Names = Map<string, Tracked>
type NameChange = (names: Names) => void

/** One directory: what its names are on the disk, and what has been done to them since. */
class Directory {
  durable: Names = new Map()
  changes: NameChange[] = []
  readonly byInode = new Map<bigint, Tracked>()
  #seen = new Map<string, bigint>()

  constructor(readonly path: string) {
    this.look()
    this.changes.length = 0
    for (const [name, inode] of this.#seen) {
      const file = this.byInode.get(inode)!
      file.durable = imageAt(join(path, name))
      this.durable.set(name, file)
    }
  }

  /** Takes note of files that have been created since. */
  look(): void {
    const before = this.#seen
    this.#seen = new Map(readdirSync(this.path).map(name => [name, lstatSync(join(this.path, name), {bigint: true}).ino]))
    for (const [name, inode] of this.#seen) {
      if (before.get(name) === inode) continue
      const file = this.byInode.get(inode) ?? {durable: EMPTY_IMAGE, last: undefined}
      this.byInode.set(inode, file)
      this.changes.push(names => names.set(name, file))
    }
  }

  at(name: string): Tracked | undefined {
    const inode = this.#seen.get(name)
    return inode === undefined ? undefined : this.byInode.get(inode)
  }

  /** The name is about to go, or to become that of another file. */
  lose(name: string): void {
    const inode = this.#seen.get(name)
    if (inode === undefined) return
    this.#seen.delete(name)
    if ([...this.#seen.values()].includes(inode)) return
    this.byInode.get(inode)!.last = imageAt(join(this.path, name))
    this.byInode.delete(inode)
  }

  /** The name is gone, and its file has another one. */
  moved(name: string): void {
    this.#seen.delete(name)
  }

  /** The file at a name now, which look() must not take for a new one. */
  gained(name: string): void {
    this.#seen.set(name, lstatSync(join(this.path, name), {bigint: true}).ino)
  }
}

/**
 * Watches the calls by which files in directories are renamed, removed and synced. Everything else is found by comparing: what a file
 * held when it was last synced is on the disk; of each block of 4096 bytes that is different by now the disk has the old or the
 * new one. Of the names a journal has the oldest changes, and the strictest reader of POSIX any of them.
 */
export class PowerCutDisk {
  readonly #directories = new Map<string, Directory>()
  #undo: (() => void) | undefined

  /** Begins to watch; one at a time in a process. */
  install(handle: FileHandle): void {
    const promises = fs.promises
    const prototype = Object.getPrototypeOf(handle) as FileHandle
    const before = {rename: promises.rename, link: promises.link, rm: promises.rm, fdatasync: fs.fdatasync, sync: prototype.sync, datasync: prototype.datasync}
    const disk = this
    Object.assign(promises, {
      rename: async (from: string, to: string) => disk.#rename(from, to),
      link: async (from: string, to: string) => disk.#link(from, to),
      rm: async (path: string, options?: fs.RmOptions) => disk.#remove(path, options),
    })
    const fdatasync = (fd: number, done: (error: Error | null) => void): void => {
      const synced = disk.#syncs(fd)
      before.fdatasync(fd, error => {
        if (error === null) synced()
        done(error)
      })
    }
    Object.assign(fs, {fdatasync})
    for (const call of ['sync', 'datasync'] as const) {
      prototype[call] = async function (this: FileHandle) {
        const synced = disk.#syncs(this.fd)
        await before[call].call(this)
        synced()
      }
    }
    syncBuiltinESMExports()
    this.#undo = () => {
      Object.assign(promises, {rename: before.rename, link: before.link, rm: before.rm})
      Object.assign(fs, {fdatasync: before.fdatasync})
      Object.assign(prototype, {sync: before.sync, datasync: before.datasync})
      syncBuiltinESMExports()
    }
  }

  uninstall(): void {
    this.#undo?.()
    this.#undo = undefined
  }

  /** From now on this directory, all of which is on the disk now, is watched. */
  adopt(path: string): void {
    this.#directories.set(resolve(path), new Directory(resolve(path)))
  }

  forget(path: string): void {
    this.#directories.delete(resolve(path))
  }

  /** Makes at `to` what a power cut at this moment may leave of `path`. */
  cut(path: string, to: string, random: Random): void {
    const directory = this.#directories.get(resolve(path))!
    directory.look()
    const names = new Map(directory.durable)
    const {changes} = directory
    const prefix = random.oneIn(2) ? random.below(changes.length + 1) : undefined
    for (const [index, change] of changes.entries()) {
      if (prefix === undefined ? random.oneIn(2) : index < prefix) change(names)
    }
    const now = new Map([...readdirSync(directory.path)].map(name => [directory.at(name), name]))
    mkdirSync(to, 0o700)
    const made = new Map<Tracked, string>()
    const luck = random.below(4)
    for (const [name, file] of names) {
      const twin = made.get(file)
      if (twin !== undefined) {
        linkSync(twin, join(to, name))
        continue
      }
      const live = now.get(file)
      const latest = live === undefined ? (file.last ?? file.durable) : imageAt(join(directory.path, live))
      writeImage(join(to, name), mixed(file.durable, latest, luck, random))
      made.set(file, join(to, name))
    }
  }

  #rename(from: string, to: string): void {
    const directory = this.#of(from)
    directory?.look()
    const [source, target] = [basename(from), basename(to)]
    const file = directory?.at(source)
    const same = directory !== undefined && file === directory.at(target)
    if (directory !== undefined && !same) directory.lose(target)
    fs.renameSync(from, to)
    if (directory === undefined || same) return
    directory.gained(target)
    directory.moved(source)
    directory.changes.push(names => {
      const moved = names.get(source)
      if (moved === undefined) return
      names.delete(source)
      names.set(target, moved)
    })
  }

  #link(from: string, to: string): void {
    fs.linkSync(from, to)
    this.#of(to)?.look()
  }

  #remove(path: string, options: fs.RmOptions | undefined): void {
    const directory = this.#of(path)
    const name = basename(path)
    directory?.look()
    const file = directory?.at(name)
    directory?.lose(name)
    fs.rmSync(path, options)
    if (file !== undefined) directory!.changes.push(names => void (names.get(name) === file && names.delete(name)))
  }

  /** A sync of this file or directory begins; to be called when it has ended. */
  #syncs(fd: number): () => void {
    const path = readlinkSync(`/proc/self/fd/${fd}`)
    if (fstatSync(fd).isDirectory()) {
      const directory = this.#directories.get(path)
      directory?.look()
      const changes = [...(directory?.changes ?? [])]
      return () => {
        if (directory === undefined) return
        for (const change of changes) {
          const at = directory.changes.indexOf(change)
          if (at === -1) continue
          change(directory.durable)
          directory.changes.splice(at, 1)
        }
      }
    }
    const directory = this.#of(path)
    directory?.look()
    const file = directory?.byInode.get(fstatSync(fd, {bigint: true}).ino)
    if (file === undefined) return () => undefined
    const image = readNow(fd)
    return () => {
      file.durable = image
    }
  }

  #of(path: string): Directory | undefined {
    return this.#directories.get(dirname(resolve(path)))
  }
}

/** The descriptor may be one for writing only. */
function readNow(fd: number): FileImage {
  const reading = openSync(`/proc/self/fd/${fd}`, 'r')
  try {
    return imageOf(reading)
  } finally {
    closeSync(reading)
  }
}

/** Each block that is different the old or the new one; `luck` 0: all new, 1: all old. */
function mixed(before: FileImage, after: FileImage, luck: number, random: Random): FileImage {
  const isNew = (): boolean => luck === 0 || (luck !== 1 && random.oneIn(2))
  const size = before.size === after.size || isNew() ? after.size : before.size
  const blocks = new Map<number, Buffer>()
  for (const block of new Set([...before.blocks.keys(), ...after.blocks.keys()])) {
    if (block * BLOCK >= size) continue
    const [old, fresh] = [before.blocks.get(block), after.blocks.get(block)]
    const same = old !== undefined && fresh !== undefined && old.equals(fresh)
    const value = same || isNew() ? fresh : old
    if (value !== undefined) blocks.set(block, value)
  }
  return {size, blocks}
}
