// Garbage at the whole target, transport and disk together: nobody else notices, and the log says who it was and why.
import {randomBytes} from 'node:crypto'
import fc from 'fast-check'
import t, {type Test} from 'tap'
import {iscsiFrontend} from '../../../../src/engine/frontends/iscsi/iscsi-frontend.js'
import {DISK_COMMANDS} from '../../../../src/engine/frontends/iscsi/scsi/disk-commands.js'
import {slabs} from '../../../../src/lib/net/slab.js'
import {MemoryDevice} from '../../support/memory-device.js'
import {Initiator, TARGET, type Result} from './transport/support/initiator.js'
import {converse} from './transport/support/raw.js'
import {recordedRequests} from './transport/support/recorded.js'
import {eventually, recordedLog} from './transport/support/served.js'
import {encode, hex, IMMEDIATE, loginPdu, lunBytes, NONE, OP, rw10, text, type Pdu} from './transport/support/wire.js'

const MIB = 1024 * 1024
const SIZE = 8 * MIB
const BLOCK_BYTES = 512
const BYSTANDER = 'iqn.2000-01.org.example:bystander'
const HOSTILE = 'iqn.2000-01.org.example:hostile'
const [GOOD, CHECK, TASK_ABORTED, BUSY] = [0x00, 0x02, 0x40, 0x08]
const UNIT_ATTENTION = 6

interface Target {
  readonly port: number
  readonly device: MemoryDevice
  readonly entries: Record<string, unknown>[]
}

async function serve(t: Test): Promise<Target> {
  const device = new MemoryDevice(SIZE)
  device.mode = 'later'
  const {log, entries} = recordedLog()
  const frontend = await iscsiFrontend.open({volume: 'vol', device, listen: {kind: 'tcp', host: '127.0.0.1', port: 0}, log})
  t.teardown(() => frontend.close(0))
  return {port: Number(new URL(frontend.endpoint).port), device, entries}
}

/** Runs a command until it is neither told of something that happened nor taken back. */
async function insist(initiator: Initiator, cdb: Buffer, options: {read?: number; write?: Buffer} = {}): Promise<Result> {
  for (;;) {
    const result = await initiator.run(cdb, options)
    const isTold = result.status === CHECK && (result.sense[2]! & 0x0f) === UNIT_ATTENTION
    if (!isTold && result.status !== TASK_ABORTED && result.status !== BUSY) return result
  }
}

/** An initiator that goes about its work until it is told to stop, and throws when anything is not as it should be. */
async function bystander(port: number): Promise<{stop: () => Promise<number>}> {
  const initiator = await Initiator.open(port, {name: BYSTANDER})
  // REGISTER and RESERVE, write exclusive: what others write by accident would be its data.
  for (const [action, keys] of [['00', `${'00'.repeat(8)}${'ab'.repeat(8)}`], ['01', `${'ab'.repeat(8)}${'00'.repeat(8)}`]] as const) {
    const {status} = await insist(initiator, hex(`5f ${action} 01 00 00 00000018 00`, '00'.repeat(6)), {write: hex(keys, '00'.repeat(8))})
    if (status !== GOOD) throw new Error(`no reservation: status ${status}`)
  }
  let stopped = false
  let rounds = 0
  const work = (async () => {
    for (; !stopped || rounds === 0; rounds++) {
      const block = 1024 + ((rounds * 16) % 8192)
      const data = randomBytes(16 * BLOCK_BYTES)
      const {status} = await insist(initiator, rw10(0x2a, block, 16), {write: data})
      const read = await insist(initiator, rw10(0x28, block, 16), {read: data.length})
      if (status !== GOOD || read.status !== GOOD || !read.data.equals(data)) throw new Error(`round ${rounds}: status ${status} and ${read.status}`)
    }
    await initiator.ping()
    await initiator.logout()
    await initiator.end()
    return rounds
  })()
  // Not unhandled while nobody waits for it yet.
  work.catch(() => undefined)
  return {
    stop: () => {
      stopped = true
      return work
    },
  }
}

t.test('sessions with bytes changed, lost and added, beside one that is at work', async t => {
  const {port, device, entries} = await serve(t)
  const other = await bystander(port)
  const login = encode(loginPdu({text: {InitiatorName: HOSTILE, TargetName: TARGET, SessionType: 'Normal', InitialR2T: 'No', FirstBurstLength: '512'}}))
  // A reset of the target would end all sessions, as it should.
  const session = Buffer.concat([login, ...recordedRequests().filter(({opcode}) => (opcode & 0x3f) !== OP.TMF).map(pdu => encode(pdu))])
  const change = fc.record({at: fc.nat(session.length - 1), what: fc.constantFrom('set', 'set', 'cut', 'add'), bytes: fc.uint8Array({minLength: 1, maxLength: 6})})
  const mutate = (changes: readonly {at: number; what: string; bytes: Uint8Array}[]): Buffer =>
    changes.reduce((whole, {at, what, bytes}) => {
      const skipped = what === 'add' ? 0 : bytes.length
      return Buffer.concat([whole.subarray(0, at), what === 'cut' ? Buffer.alloc(0) : bytes, whole.subarray(at + skipped)])
    }, session)
  await fc.assert(
    fc.asyncProperty(fc.array(change, {minLength: 1, maxLength: 5}), async changes => void (await converse(port, [mutate(changes)]))),
    {numRuns: 150},
  )
  t.ok((await other.stop()) > 0, 'it has never noticed')
  await eventually(() => device.inFlight === 0, 'nothing is under way')
  const ended = entries.filter(({msg}) => msg === 'iscsi: connection ended')
  t.ok(ended.length > 0)
  t.ok(ended.every(({peer, reason}) => typeof peer === 'string' && typeof reason === 'string' && reason !== ''), 'each time the log says who and why')
  t.notOk(ended.some(({peer}) => `${peer}`.includes(BYSTANDER)))
  t.notOk(entries.some(({level}) => level === 'error'), 'nothing that should not happen')
  // Those of streams that were just closed may still be on their way back.
  await eventually(() => slabs.inUse <= 2, `${slabs.inUse} slabs are in use`)
})

t.test('any command gets an answer, and the session goes on', async t => {
  const {port, device, entries} = await serve(t)
  const initiator = await Initiator.open(port, {name: HOSTILE})
  const opcode = fc.oneof({weight: 8, arbitrary: fc.constantFrom(...DISK_COMMANDS.all)}, {weight: 1, arbitrary: fc.nat(255).map(code => ({opcode: code, action: undefined}))})
  const byte = fc.oneof({weight: 5, arbitrary: fc.constant(0)}, {weight: 2, arbitrary: fc.nat(8)}, {weight: 1, arbitrary: fc.nat(255)})
  const command = fc.record({
    code: opcode,
    rest: fc.array(byte, {minLength: 15, maxLength: 15}),
    lun: fc.constantFrom(1, 1, 1, 0, 2),
    read: fc.constantFrom(0, 0, 8, 255, 512, 65536),
    write: fc.oneof(fc.constant(undefined), fc.constant(undefined), fc.constantFrom(1, 24, 512, 1024, 4096, 66_000).map(length => Buffer.alloc(length)), fc.uint8Array({minLength: 1, maxLength: 600}).map(bytes => Buffer.from(bytes))),
    attribute: fc.nat(7),
  })
  let answered = 0
  await fc.assert(
    fc.asyncProperty(fc.array(command, {minLength: 1, maxLength: 12}), async commands => {
      const results = await Promise.all(
        commands.map(({code, rest, lun, read, write, attribute}) => {
          const cdb = Buffer.from([code.opcode, ...rest])
          if (code.action !== undefined) cdb[1] = (cdb[1]! & 0xe0) | code.action
          return initiator.run(cdb, {lun, read, attribute, ...(write === undefined ? {} : {write})})
        }),
      )
      answered += results.length
      const odd = results.find(({status, sense}) => ![GOOD, CHECK, BUSY, 0x18].includes(status) || (status === CHECK) !== sense.length > 0)
      if (odd !== undefined) throw new Error(`status ${odd.status}, sense ${odd.sense.toString('hex')}`)
      // Hardware error: an exception that nobody expected.
      const broken = results.find(({sense}) => sense.length > 13 && (sense[0]! & 0x7e) === 0x70 && ((sense[2]! & 0x0f) === 4))
      if (broken !== undefined) throw new Error(`sense ${broken.sense.toString('hex')}`)
    }),
    {numRuns: 250},
  )
  t.ok(answered > 250, `${answered} commands`)
  await initiator.ping()
  await initiator.logout()
  await initiator.end()
  await eventually(() => device.inFlight === 0, 'nothing is under way')
  t.notOk(entries.some(({level}) => level === 'error'))
})

t.test('who it was and why, in the log', async t => {
  const {port, entries} = await serve(t)
  const lun = lunBytes(1)
  const read: Pdu = {opcode: OP.COMMAND, flags: 0xc1, lun, itt: 5, at20: 512, at24: 1, cdb: rw10(0x28, 0, 1)}
  const oversized = encode({opcode: OP.NOP_OUT, itt: 5, at20: NONE, at24: 1})
  oversized.writeUInt32BE(0xff_ffff, 4)
  const wrongDigest = encode(read, {header: true})
  wrongDigest[50]! ^= 1
  for (const [what, bytes, digests, reason] of [
    ['a data segment of 16 MiB', oversized, {}, /16777215 bytes of data/],
    ['a header digest that does not match', wrongDigest, {header: true}, /digest/],
    ['a login after the login', encode(loginPdu({text: {InitiatorName: HOSTILE}})), {}, /login/],
    ['data for nobody', encode({opcode: OP.DATA_OUT, lun, itt: 77, at20: 3, data: Buffer.alloc(512)}), {}, /data that belongs to no command/],
    ['a text that is none', encode({opcode: OP.TEXT | IMMEDIATE, itt: 5, at20: NONE, at24: 1, data: Buffer.from('garbage')}), {}, /"="/],
    ['an opcode that does not exist', encode({opcode: 0x1d, itt: 5, at24: 1}), {}, /opcode/],
    ['half a request', encode(read).subarray(0, 30), {}, /in the middle/],
  ] as const) {
    entries.length = 0
    const initiator = await Initiator.open(port, {name: HOSTILE, digests})
    initiator.socket.write(bytes)
    initiator.socket.end()
    await initiator.end()
    const found = (): Record<string, unknown> | undefined => entries.find(entry => reason.test(`${entry.reason}`))
    await eventually(() => found() !== undefined, `${what}: ${JSON.stringify(entries)}`)
    t.ok(`${found()?.peer}`.startsWith(`${HOSTILE} at 127.0.0.1`), what)
  }
  for (const [what, keys, reason] of [
    ['another target', {TargetName: 'iqn.2019-10.io.longhorn:other'}, /target/],
    ['no target', {}, /target/i],
    ['a kind of session that does not exist', {TargetName: TARGET, SessionType: 'Strange'}, /session/i],
    ['a value out of range', {TargetName: TARGET, MaxRecvDataSegmentLength: '1'}, /MaxRecvDataSegmentLength/],
  ] as const) {
    entries.length = 0
    await converse(port, [encode(loginPdu({text: text({InitiatorName: HOSTILE, ...keys})}))])
    await eventually(() => entries.some(({peer, reason: why}) => `${peer}`.startsWith(HOSTILE) && reason.test(`${why}`)), `${what}: ${JSON.stringify(entries)}`)
    t.pass(what)
  }
})
