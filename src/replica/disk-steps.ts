import {constants} from 'node:fs'
import {link, mkdir, open, rename, rm} from 'node:fs/promises'

/**
 * The steps in which the files of a replica directory change, each one a point where the machine may stop.
 * Everything that creates, replaces or removes a file there goes through these, so that a test can put a layer in
 * between that stops at the n-th step or loses what was never synced. The data of the layers does not go this way.
 */
export interface DiskSteps {
  /** Creates a directory; its parent must exist. */
  makeDirectory(path: string, mode: number): Promise<void>
  /** Creates a file of `sizeBytes` that is one hole, and syncs it. Fails with EEXIST when the name is taken. */
  createSparse(path: string, sizeBytes: number, mode: number): Promise<void>
  /** Creates or overwrites a file and syncs it. */
  writeSynced(path: string, content: string | Uint8Array, mode: number): Promise<void>
  /** Overwrites a few bytes of a file that lie in one sector of the disk, and syncs it. */
  patchSynced(path: string, content: string, position: number): Promise<void>
  /** Gives a file another name, replacing what had that name. Durable only after `syncDirectory`. */
  rename(from: string, to: string): Promise<void>
  /** Gives a file a second name. Fails with EEXIST when that is taken. Durable only after `syncDirectory`. */
  link(from: string, to: string): Promise<void>
  /** Removes a file if it is there. Durable only after `syncDirectory`. */
  remove(path: string): Promise<void>
  /** Makes the names in a directory durable. */
  syncDirectory(path: string): Promise<void>
}

/** The real thing. Errors are Node's own. */
export const realDisk: DiskSteps = {
  async makeDirectory(path, mode) {
    await mkdir(path, {mode})
  },

  async createSparse(path, sizeBytes, mode) {
    await using file = await open(path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, mode)
    await file.truncate(sizeBytes)
    await file.sync()
  },

  async writeSynced(path, content, mode) {
    await using file = await open(path, 'w', mode)
    await file.writeFile(content)
    await file.sync()
  },

  async patchSynced(path, content, position) {
    await using file = await open(path, 'r+')
    await file.write(content, position)
    await file.sync()
  },

  async rename(from, to) {
    await rename(from, to)
  },

  async link(from, to) {
    await link(from, to)
  },

  async remove(path) {
    await rm(path, {force: true})
  },

  async syncDirectory(path) {
    await using directory = await open(path, constants.O_RDONLY | constants.O_DIRECTORY)
    await directory.sync()
  },
}
