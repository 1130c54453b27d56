// Asks an NBD server about an export before anything is built on it.
import {connect, type Socket} from 'node:net'
import {OPTION} from '../../engine/frontends/nbd/protocol.js'
import {formatAddress} from '../../lib/address.js'
import {errnoOf, LonghornError, messageOf} from '../../lib/errors.js'
import type {NbdEndpoint} from './attach-way.js'
import {encodeOption, negotiate, type NbdExport} from './nbd-negotiation.js'

const NOTHING = Buffer.alloc(0)

/** Throws UNREACHABLE, TIMEOUT, NOT_FOUND (no such export), PROTOCOL, or the signal's reason. */
export async function queryExport({address, exportName}: NbdEndpoint, timeoutMs: number, signal?: AbortSignal): Promise<NbdExport> {
  signal?.throwIfAborted()
  const where = formatAddress(address)
  const socket = connect(address.kind === 'unix' ? {path: address.path} : {host: address.host || 'localhost', port: address.port})
  const timeout = new LonghornError('TIMEOUT', `NBD server ${where} did not answer within ${timeoutMs} ms`)
  const timer = setTimeout(() => socket.destroy(timeout), timeoutMs)
  const abort = (): void => void socket.destroy(signal?.reason as Error)
  signal?.addEventListener('abort', abort, {once: true})
  try {
    return await ask(socket, exportName)
  } catch (error) {
    signal?.throwIfAborted()
    if (error instanceof LonghornError) throw error === timeout ? error : new LonghornError(kindOf(error), `NBD server ${where}: ${error.message}`)
    throw new LonghornError('UNREACHABLE', `NBD server ${where}: ${errnoOf(error) ?? messageOf(error)}`, {}, {cause: error})
  } finally {
    clearTimeout(timer)
    signal?.removeEventListener('abort', abort)
    socket.on('error', () => undefined).destroy()
  }
}

async function ask(socket: Socket, exportName: string): Promise<NbdExport> {
  const reader = new SocketReader(socket)
  const negotiation = negotiate('INFO', exportName)
  for (let step = negotiation.next(); ; ) {
    if (step.done === true) {
      socket.write(encodeOption(OPTION.ABORT, NOTHING))
      return step.value
    }
    if (typeof step.value === 'number') {
      step = negotiation.next(await reader.read(step.value))
    } else {
      socket.write(step.value)
      step = negotiation.next(NOTHING)
    }
  }
}

/** The code of an error that gets a longer text. */
function kindOf(error: LonghornError): 'NOT_FOUND' | 'PROTOCOL' {
  return error.code === 'LH_NOT_FOUND' ? 'NOT_FOUND' : 'PROTOCOL'
}

/** Exactly so many bytes at a time, from a socket that ends with an error when it ends early. */
class SocketReader {
  readonly #chunks: AsyncIterator<Buffer, undefined>
  #rest: Buffer = NOTHING

  constructor(socket: Socket) {
    this.#chunks = socket[Symbol.asyncIterator]() as AsyncIterator<Buffer, undefined>
  }

  async read(bytes: number): Promise<Buffer> {
    while (this.#rest.length < bytes) {
      const chunk = await this.#chunks.next()
      if (chunk.done === true) throw new LonghornError('PROTOCOL', 'the server closed the connection during the negotiation')
      this.#rest = Buffer.concat([this.#rest, chunk.value])
    }
    const taken = this.#rest.subarray(0, bytes)
    this.#rest = this.#rest.subarray(bytes)
    return taken
  }
}
