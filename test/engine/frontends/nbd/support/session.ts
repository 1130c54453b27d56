import {MemoryDevice} from '../../../support/memory-device.js'
import {NbdClient, type Target} from './nbd-client.js'
import {CMD, FLAG, infoData, metaData, option, OPT, request, u32} from './wire.js'

/** The volume of a recorded session: with something on it. */
export function sessionDevice(): MemoryDevice {
  const device = new MemoryDevice(1024 * 1024)
  device.bytes.write('something that was here before', 4090)
  return device
}

/** All that a client says in a session that uses everything; the answers do not depend on how it arrives. */
export function sessionBytes(): Buffer {
  return Buffer.concat([
    u32(3),
    option(OPT.STRUCTURED_REPLY),
    option(OPT.LIST),
    option(77, Buffer.from('unknown')),
    option(OPT.LIST_META_CONTEXT, metaData('vol', 'base:')),
    option(OPT.SET_META_CONTEXT, metaData('vol', 'base:allocation')),
    option(OPT.INFO, infoData('', 1, 2, 3)),
    option(OPT.GO, infoData('vol', 3)),
    ...sessionRequests(),
  ])
}

/** Its requests alone. */
export function sessionRequests(): Buffer[] {
  return [
    request({command: CMD.READ, offset: 4090, length: 30, cookie: 1n}),
    request({command: CMD.WRITE, offset: 4094, payload: Buffer.from('written over'), cookie: 2n}),
    request({command: CMD.READ, offset: 4090, length: 30, flags: FLAG.DF, cookie: 3n}),
    request({command: CMD.WRITE, offset: 2 ** 40, payload: Buffer.from('nowhere'), cookie: 4n}),
    request({command: CMD.WRITE, offset: 10, payload: Buffer.from('x'), flags: FLAG.FUA, cookie: 5n}),
    request({command: CMD.WRITE, offset: 3, length: 0, cookie: 6n}),
    request({command: CMD.FLUSH, cookie: 7n}),
    request({command: CMD.BLOCK_STATUS, length: 65536, flags: FLAG.REQ_ONE, cookie: 8n}),
    request({command: CMD.TRIM, offset: 8192, length: 4096, cookie: 9n}),
    request({command: CMD.WRITE_ZEROES, offset: 4095, length: 3, flags: FLAG.NO_HOLE, cookie: 10n}),
    request({command: 200, cookie: 11n}),
    request({command: CMD.READ, offset: 4090, length: 30, cookie: 12n}),
    request({command: CMD.DISC}),
  ]
}

/**
 * Sends these parts one after the other, each after the server has had time to look at the one before, then says that
 * nothing more comes. Gives all that the server says until it hangs up.
 */
export async function converse(target: Target, parts: readonly Buffer[]): Promise<Buffer> {
  const client = await NbdClient.connect(target)
  for (const part of parts) {
    client.socket.write(part)
    for (let pass = 0; pass < 3; pass++) await new Promise(resolve => setImmediate(resolve))
  }
  client.socket.end()
  const answer = await client.rest()
  client.socket.destroy()
  return answer
}
