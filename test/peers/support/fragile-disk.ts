import {existsSync} from 'node:fs'
import {mkdir, readFile, rm, writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import type {Test} from 'tap'
import {attempt, missing, tool} from './tool.js'

const MIB = 1024 * 1024
const KINDS = {
  ext4: {make: ['mkfs.ext4', '-q', '-F'], bytes: 256 * MIB, options: 'rw'},
  // A file system that was shut down may live on where another mount namespace still has it, with the same UUID.
  xfs: {make: ['mkfs.xfs', '-q', '-f'], bytes: 320 * MIB, options: 'nouuid'},
} as const

/** Why there can be no such disks here, else false. */
export async function withoutFragileDisks(): Promise<string | false> {
  if (process.geteuid?.() !== 0) return 'mounting needs root'
  if (!existsSync('/dev/loop-control')) return 'there is no /dev/loop-control'
  return missing('mount', 'xfs_io', 'mkfs.ext4', 'mkfs.xfs')
}

/**
 * A file system whose power can be cut: the kernel then forgets what was not synced, in its own page cache and journal. What
 * reached the image file is what the disk holds.
 */
export class FragileDisk {
  /** Where it is mounted. */
  readonly path: string
  readonly #image: string
  readonly #kind: keyof typeof KINDS
  #loop = ''

  private constructor(folder: string, kind: keyof typeof KINDS) {
    this.path = join(folder, kind)
    this.#image = join(folder, `${kind}.img`)
    this.#kind = kind
  }

  static async make(t: Test, folder: string, kind: keyof typeof KINDS): Promise<FragileDisk> {
    const disk = new FragileDisk(folder, kind)
    await tool(['truncate', '-s', `${KINDS[kind].bytes}`, disk.#image])
    await tool([...KINDS[kind].make, disk.#image])
    await mkdir(disk.path)
    t.teardown(async () => {
      await attempt(['umount', '--lazy', disk.path])
      await attempt(['losetup', '--detach', disk.#loop])
    })
    await disk.#mount()
    return disk
  }

  /** From now on nothing gets to the disk, and what was on its way is lost. */
  async cutPower(): Promise<void> {
    await writeFile(this.#unsynced, 'nobody has synced this')
    await tool(['xfs_io', '-x', '-c', 'shutdown', this.path])
  }

  /** As after the reboot. Nobody may use it at this moment. */
  async comeBack(): Promise<void> {
    await tool(['umount', this.path])
    await tool(['losetup', '--detach', this.#loop])
    await this.#mount()
    const found = await readFile(this.#unsynced, 'utf8').catch(() => '')
    await rm(this.#unsynced, {force: true})
    if (found !== '') throw new Error(`the power of ${this.path} was not cut: what nobody has synced is there`)
  }

  get #unsynced(): string {
    return join(this.path, 'unsynced')
  }

  /** On a loop device of its own: `mount -o loop` would find the one from before if that is still in use. */
  async #mount(): Promise<void> {
    this.#loop = (await tool(['losetup', '--find', '--show', this.#image])).trim()
    await tool(['mount', '-o', KINDS[this.#kind].options, this.#loop, this.path])
  }
}
