import type {TcpAddress} from '../../lib/address.js'
import {isKind, LonghornError} from '../../lib/errors.js'
import {Receiver, type ReceiverOptions} from './receiver.js'

/** Where receivers listen: one port each, from a range. */
export class ReceiverPorts {
  #next = 0

  constructor(
    readonly host: string,
    readonly first: number,
    readonly count: number,
  ) {}

  /** Starts a receiver on the next free port, in turn. BUSY when all are taken. */
  async start(options: Omit<ReceiverOptions, 'listen'>): Promise<Receiver> {
    for (let attempt = 0; attempt < this.count; attempt++) {
      const port = this.first + (this.#next++ % this.count)
      try {
        return await Receiver.start({...options, listen: {kind: 'tcp', host: this.host, port} satisfies TcpAddress})
      } catch (error) {
        if (!isKind(error, 'CONFLICT')) throw error
      }
    }
    const range = this.count === 0 ? 'there are none' : `${this.first} to ${this.first + this.count - 1} are all in use`
    throw new LonghornError('BUSY', `no port to receive a file on: ${range}. Wait for other transfers, or start the replica with a larger --sync-agent-port-count`)
  }
}
