// The volume as most people use one: a block device with a file system on it.
import {open, readFile, writeFile, type FileHandle} from 'node:fs/promises'
import {join} from 'node:path'
import {LonghornError} from '../../src/lib/errors.js'
import {checksumList, FILE_BYTES, fileName, type DemoFile} from './demo-files.js'
import type {Shell} from './shell.js'
import {shellWords} from './shell-words.js'
import type {VolumeUser} from './volume-user.js'

const LIST = 'SHA256SUMS'

export class FileSystemUser implements VolumeUser {
  readonly durably = 'written and synced to disk'
  readonly #device: string
  readonly #mountPoint: string
  readonly #shell: Shell
  #file: FileHandle | undefined
  #closed = false

  private constructor(device: string, mountPoint: string, shell: Shell) {
    this.#device = device
    this.#mountPoint = mountPoint
    this.#shell = shell
  }

  /** Makes the file system and mounts it. */
  static async open(device: string, mountPoint: string, shell: Shell, signal: AbortSignal): Promise<FileSystemUser> {
    await shell.run(['mkfs.ext4', '-q', device], signal)
    return FileSystemUser.mount(device, mountPoint, shell, signal)
  }

  /** Mounts the file system that is there. */
  static async mount(device: string, mountPoint: string, shell: Shell, signal: AbortSignal): Promise<FileSystemUser> {
    const user = new FileSystemUser(device, mountPoint, shell)
    await user.#mount(signal)
    return user
  }

  async append(index: number, at: number, piece: Buffer): Promise<void> {
    if (at === 0) {
      const file = await open(join(this.#mountPoint, fileName(index)), 'wx')
      // An open file would keep the mount busy for good.
      if (this.#closed) await file.close()
      else this.#file = file
    }
    const file = this.#file
    if (file === undefined) throw new LonghornError('INTERRUPTED', 'the file system is no longer in use')
    await file.write(piece)
    await file.datasync()
    if (at + piece.length < FILE_BYTES) return
    this.#file = undefined
    await file.close()
  }

  async finish(files: readonly DemoFile[], signal: AbortSignal): Promise<void> {
    await writeFile(join(this.#mountPoint, LIST), checksumList(files))
    await this.#shell.run(['sync', '-f', this.#mountPoint], signal)
  }

  async reopen(signal: AbortSignal): Promise<void> {
    await this.#shell.run(['umount', this.#mountPoint], signal)
    await this.#shell.run(['e2fsck', '-f', '-n', this.#device], signal)
    await this.#mount(signal)
  }

  /** By a program that nobody here wrote; the list of checksums it reads is compared with ours first. */
  async verify(files: readonly DemoFile[], signal: AbortSignal): Promise<void> {
    if ((await readFile(join(this.#mountPoint, LIST), 'utf8')) !== checksumList(files)) {
      throw new LonghornError('CORRUPT', `${LIST} on the volume is not what was written`)
    }
    await this.#shell.script(`(cd ${shellWords([this.#mountPoint]).join('')} && sha256sum --check --quiet ${LIST})`, signal)
  }

  async leave(signal: AbortSignal): Promise<void> {
    await this.#shell.run(['umount', this.#mountPoint], signal)
  }

  async close(): Promise<void> {
    this.#closed = true
    const file = this.#file
    this.#file = undefined
    await file?.close()
  }

  async #mount(signal: AbortSignal): Promise<void> {
    await this.#shell.run(['mount', '-t', 'ext4', this.#device, this.#mountPoint], signal)
  }
}
