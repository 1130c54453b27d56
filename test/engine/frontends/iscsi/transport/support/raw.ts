import {once} from 'node:events'
import {connect, type Socket} from 'node:net'

/** A connection of which nothing is known but its bytes. */
export class RawClient {
  #received = Buffer.alloc(0)
  #ended = false
  #wake: () => void = () => undefined

  private constructor(readonly socket: Socket) {
    socket.on('data', chunk => {
      this.#received = Buffer.concat([this.#received, chunk])
      this.#wake()
    })
    socket.on('error', () => undefined)
    for (const event of ['end', 'close']) {
      socket.on(event, () => {
        this.#ended = true
        this.#wake()
      })
    }
  }

  static async connect(port: number): Promise<RawClient> {
    const socket = connect({port, host: '127.0.0.1', noDelay: true, allowHalfOpen: true})
    const client = new RawClient(socket)
    await once(socket, 'connect')
    return client
  }

  /** The next `length` bytes that come. Rejects when the connection ends first. */
  async take(length: number): Promise<Buffer> {
    while (this.#received.length < length) {
      if (this.#ended) throw new Error(`ended after ${this.#received.toString('hex')}`)
      await this.#more()
    }
    const bytes = this.#received.subarray(0, length)
    this.#received = this.#received.subarray(length)
    return bytes
  }

  /** Everything that comes until the target hangs up. */
  async rest(): Promise<Buffer> {
    while (!this.#ended) await this.#more()
    const bytes = this.#received
    this.#received = Buffer.alloc(0)
    return bytes
  }

  #more(): Promise<void> {
    return new Promise(resolve => (this.#wake = resolve))
  }
}

/**
 * Sends these parts one after the other, each after the target has had time to look at the one before, then says that
 * nothing more comes. Gives all that the target says until it hangs up.
 */
export async function converse(port: number, parts: readonly Buffer[]): Promise<Buffer> {
  const client = await RawClient.connect(port)
  for (const part of parts) {
    client.socket.write(part)
    for (let pass = 0; pass < 3; pass++) await new Promise(resolve => setImmediate(resolve))
  }
  client.socket.end()
  const answer = await client.rest()
  client.socket.destroy()
  return answer
}
