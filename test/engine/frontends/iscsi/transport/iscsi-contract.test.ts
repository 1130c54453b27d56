import t from 'tap'
import {iscsiFrontend} from '../../../../../src/engine/frontends/iscsi/iscsi-frontend.js'
import {frontendContract, type FrontendAdapter, type InitiatorClient} from '../../frontend-contract.js'
import {CommandFailed, Initiator, type Result, type SessionOptions} from './support/initiator.js'
import {rw10} from './support/wire.js'

const BLOCK_BYTES = 512
const UNIT_ATTENTION = 6

let sessions = 0

async function connect(endpoint: string, options: SessionOptions): Promise<InitiatorClient> {
  const [, port, target] = /^iscsi:\/\/127\.0\.0\.1:(\d+)\/(.*)\/1$/.exec(endpoint) ?? []
  // Each its own initiator port, or it would take another one's place.
  const initiator = await Initiator.open(Number(port), {name: `iqn.2000-01.org.example:${sessions++}`, ...options, keys: {TargetName: target!}})
  await ready(initiator)
  const run = async (cdb: Buffer, fields: {read?: number; write?: Buffer} = {}): Promise<Result> => {
    const result = await initiator.run(cdb, fields)
    if (result.status !== 0) throw new CommandFailed(result)
    return result
  }
  return {
    read: async (offset, length) => (await run(rw16(0x88, offset, length), {read: length})).data,
    write: async (offset, data, fua) => void (await run(rw16(0x8a, offset, data.length, fua === true ? 0x08 : 0), {write: data})),
    flush: async () => void (await run(Buffer.from('35'.padEnd(32, '0'), 'hex'))),
    discard: async (offset, length) => void (await run(Buffer.from(`42${'00'.repeat(6)}0018`.padEnd(32, '0'), 'hex'), {write: unmapList(offset, length)})),
    zeroes: async (offset, length) => void (await run(rw16(0x93, offset, length), {write: Buffer.alloc(BLOCK_BYTES)})),
    readWithoutTaking(count, length) {
      initiator.socket.pause()
      for (let index = 0; index < count; index++) initiator.run(rw10(0x28, 0, length / BLOCK_BYTES), {read: length}).catch(() => undefined)
    },
    takeAgain: () => void initiator.socket.resume(),
    kill: () => initiator.kill(),
    async close() {
      await initiator.logout()
      await initiator.end()
    },
  }
}

/** The first commands of a session are told what has happened before. */
async function ready(initiator: Initiator): Promise<void> {
  for (;;) {
    const {status, sense} = await initiator.run(Buffer.alloc(16))
    if (status === 0) return
    if ((sense[2]! & 0x0f) !== UNIT_ATTENTION) throw new Error(`not ready: ${sense.toString('hex')}`)
  }
}

function rw16(code: number, offset: number, length: number, flags = 0): Buffer {
  const cdb = Buffer.alloc(16)
  cdb[0] = code
  cdb[1] = flags
  cdb.writeBigUInt64BE(BigInt(offset / BLOCK_BYTES), 2)
  cdb.writeUInt32BE(length / BLOCK_BYTES, 10)
  return cdb
}

function unmapList(offset: number, length: number): Buffer {
  const list = Buffer.alloc(24)
  list.writeUInt16BE(22, 0)
  list.writeUInt16BE(16, 2)
  list.writeBigUInt64BE(BigInt(offset / BLOCK_BYTES), 8)
  list.writeUInt32BE(length / BLOCK_BYTES, 16)
  return list
}

const can = {
  unaligned: false,
  flush: true,
  fua: true,
  discard: true,
  zeroes: true,
  requestBytes: 4 * 1024 * 1024,
  slowReaders: true,
  severalClients: true,
}

function adapter(options: SessionOptions): FrontendAdapter {
  return {kind: iscsiFrontend, can, address: () => ({kind: 'tcp', host: '127.0.0.1', port: 0}), connect: ({endpoint}) => connect(endpoint, options)}
}

t.test('iscsi', async t => frontendContract(t, adapter({segment: 262144, firstBurst: 262144})))
t.test('iscsi, with digests and data that has to be asked for', async t =>
  frontendContract(t, adapter({immediate: false, initialR2T: true, digests: {header: true, data: true}})))
