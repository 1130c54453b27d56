// A server that answers NBD_OPT_INFO as it is told to, to be asked by us; what it says otherwise is up to the test.
import {createServer, type Socket} from 'node:net'
import {mkdtempSync, rmSync} from 'node:fs'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import type {Test} from 'tap'
import type {NbdEndpoint} from '../../../../src/drivers/attach/attach-way.js'

export const FLAGS = {has: 1, readOnly: 2, flush: 4, trim: 32, zeroes: 64} as const

export const GREETING = Buffer.concat([Buffer.from('NBDMAGICIHAVEOPT'), Buffer.from([0, 3])])

/** Serves whatever `talk` says to each client, until the test ends. */
export async function serveTalk(t: Test, talk: (socket: Socket) => void): Promise<NbdEndpoint> {
  const folder = mkdtempSync(join(tmpdir(), 'longhorn-nbd-'))
  const path = join(folder, 's')
  const sockets = new Set<Socket>()
  const server = createServer(socket => {
    sockets.add(socket)
    socket.on('error', () => undefined)
    talk(socket)
  })
  await new Promise<void>(resolve => server.listen(path, resolve))
  t.teardown(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
    rmSync(folder, {recursive: true})
  })
  return {kind: 'nbd', address: {kind: 'unix', path}, exportName: 'vol'}
}

/** Describes one export to whoever asks, and hangs up on everything else. */
export function exportOf(sizeBytes: bigint, flags: number): (socket: Socket) => void {
  return socket => {
    socket.write(GREETING)
    let input = Buffer.alloc(0)
    socket.on('data', chunk => {
      input = Buffer.concat([input, chunk])
      if (input.length < 4 + 16 || input.length < 20 + input.readUInt32BE(16)) return
      if (input.readUInt32BE(12) !== 6) {
        socket.destroy()
        return
      }
      const info = Buffer.alloc(12)
      info.writeBigUInt64BE(sizeBytes, 2)
      info.writeUInt16BE(flags, 10)
      socket.write(Buffer.concat([reply(3, info), reply(1)]))
    })
  }
}

/** A reply to NBD_OPT_INFO. */
export function reply(type: number, data: Buffer = Buffer.alloc(0), length = data.length): Buffer {
  const header = Buffer.alloc(20)
  header.writeBigUInt64BE(0x3e889045565a9n)
  header.writeUInt32BE(6, 8)
  header.writeUInt32BE(type, 12)
  header.writeUInt32BE(length, 16)
  return Buffer.concat([header, data])
}
