// The volume through the frontend `nbd` with client programs that nobody here wrote: qemu-io or nbdcopy to write,
// nbdcopy or qemu-img to read.
import {createHash} from 'node:crypto'
import {open, rm, writeFile} from 'node:fs/promises'
import {isInstalled} from '../../src/drivers/attach/run-command.js'
import {LonghornError} from '../../src/lib/errors.js'
import {fileOffset, PIECE_BYTES, type DemoFile} from './demo-files.js'
import {NbdcopyWriter} from './nbdcopy-writer.js'
import {QemuIo} from './qemu-io.js'
import type {Shell} from './shell.js'
import type {VolumeUser} from './volume-user.js'
import type {Workspace} from './workspace.js'

const PIECE_FILE = 'piece.tmp'
const COPY_FILE = 'volume.tmp'

export interface NbdTools {
  readonly writer: 'qemu-io' | 'nbdcopy'
  readonly reader: 'nbdcopy' | 'qemu-img'
}

/** Undefined when there is nothing to write with or nothing to read with. */
export async function findNbdTools(): Promise<NbdTools | undefined> {
  const [qemuIo, qemuImg, nbdcopy] = await Promise.all(['qemu-io', 'qemu-img', 'nbdcopy'].map(isInstalled))
  // qemu-io waits until each piece is durable; nbdcopy takes a stream and flushes at its end.
  const writer = qemuIo === true ? 'qemu-io' : nbdcopy === true ? 'nbdcopy' : undefined
  const reader = nbdcopy === true ? 'nbdcopy' : qemuImg === true ? 'qemu-img' : undefined
  return writer === undefined || reader === undefined ? undefined : {writer, reader}
}

/** Files one after the other on the bare volume. */
export class NbdUser implements VolumeUser {
  readonly durably: string
  readonly #uri: string
  readonly #tools: NbdTools
  readonly #workspace: Workspace
  readonly #shell: Shell
  #writer: QemuIo | NbdcopyWriter | undefined

  private constructor(uri: string, tools: NbdTools, workspace: Workspace, shell: Shell) {
    this.#uri = uri
    this.#tools = tools
    this.#workspace = workspace
    this.#shell = shell
    this.durably = tools.writer === 'qemu-io' ? 'written with FUA' : 'handed to nbdcopy'
  }

  static async open(uri: string, tools: NbdTools, workspace: Workspace, shell: Shell): Promise<NbdUser> {
    const user = new NbdUser(uri, tools, workspace, shell)
    const argv = tools.writer === 'qemu-io' ? QemuIo.command(uri) : NbdcopyWriter.command(uri)
    shell.screen.command(argv, tools.writer === 'qemu-io' ? '' : ' < files')
    user.#writer = tools.writer === 'qemu-io' ? await QemuIo.start(uri, workspace.directory) : new NbdcopyWriter(uri)
    return user
  }

  async append(index: number, at: number, piece: Buffer): Promise<void> {
    if (this.#writer instanceof NbdcopyWriter) return this.#writer.write(piece)
    // qemu-io takes data from a file; it runs in the directory of this one, as its command line knows no quotes.
    await writeFile(this.#workspace.path(PIECE_FILE), piece)
    await this.#writer?.run(`write -f -s ${PIECE_FILE} ${fileOffset(index) + at} ${PIECE_BYTES}`)
  }

  async finish(): Promise<void> {
    await this.#writer?.end()
    this.#writer = undefined
  }

  async reopen(): Promise<void> {
    // Each program that reads makes a connection of its own.
  }

  async verify(files: readonly DemoFile[], signal: AbortSignal): Promise<void> {
    const path = this.#workspace.path(COPY_FILE)
    await rm(path, {force: true})
    if (this.#tools.reader === 'nbdcopy') await this.#shell.run(['nbdcopy', this.#uri, path], signal)
    else await this.#shell.run(['qemu-img', 'convert', '-f', 'raw', '-O', 'raw', this.#uri, path], signal)
    using progress = await this.#shell.screen.progress('checking …')
    await using copy = await open(path)
    for (const {name, offset, sizeBytes, sha256} of files) {
      signal.throwIfAborted()
      progress.update(`checking ${name}`)
      const data = Buffer.alloc(sizeBytes)
      await copy.read(data, 0, sizeBytes, offset)
      if (createHash('sha256').update(data).digest('hex') !== sha256) throw new LonghornError('CORRUPT', `${name} at byte ${offset} is not what was written`)
    }
    await rm(path)
  }

  async leave(): Promise<void> {
    await this.close()
  }

  async close(): Promise<void> {
    this.#writer?.kill()
    this.#writer = undefined
  }
}
