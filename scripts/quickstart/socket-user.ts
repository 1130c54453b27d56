import {createHash} from 'node:crypto'
import {LonghornError} from '../../src/lib/errors.js'
import {fileOffset, type DemoFile} from './demo-files.js'
import type {Screen} from './screen.js'
import {VolumeSocket} from './volume-socket.js'
import type {VolumeUser} from './volume-user.js'

/** Files one after the other on the bare volume, through the data protocol. */
export class SocketUser implements VolumeUser {
  readonly durably = 'written and flushed'
  readonly #path: string
  readonly #screen: Screen
  #socket: VolumeSocket

  private constructor(path: string, socket: VolumeSocket, screen: Screen) {
    this.#path = path
    this.#screen = screen
    this.#socket = socket
  }

  static async open(path: string, screen: Screen, signal: AbortSignal): Promise<SocketUser> {
    return new SocketUser(path, await VolumeSocket.connect(path, signal), screen)
  }

  async append(index: number, at: number, piece: Buffer): Promise<void> {
    await this.#socket.write(fileOffset(index) + at, piece)
    await this.#socket.flush()
  }

  async finish(): Promise<void> {
    await this.#socket.flush()
  }

  async reopen(signal: AbortSignal): Promise<void> {
    this.#socket.close()
    this.#socket = await VolumeSocket.connect(this.#path, signal)
  }

  async verify(files: readonly DemoFile[], signal: AbortSignal): Promise<void> {
    using progress = await this.#screen.progress('reading …')
    for (const {name, offset, sizeBytes, sha256} of files) {
      signal.throwIfAborted()
      progress.update(`reading ${name}`)
      const data = await this.#socket.read(offset, sizeBytes)
      if (createHash('sha256').update(data).digest('hex') !== sha256) throw new LonghornError('CORRUPT', `${name} at byte ${offset} is not what was written`)
    }
  }

  async leave(): Promise<void> {
    this.#socket.close()
  }

  async close(): Promise<void> {
    this.#socket.close()
  }
}
