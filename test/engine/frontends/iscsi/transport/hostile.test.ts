import fc from 'fast-check'
import t, {type Test} from 'tap'
import {slabs} from '../../../../../src/lib/net/slab.js'
import {Initiator} from './support/initiator.js'
import {converse} from './support/raw.js'
import {recordedDevice, recordedLogin, recordedRequests, recordedSession} from './support/recorded.js'
import {eventually, serve, type Served} from './support/served.js'
import {decodeAll, encode, loginPdu, OP, type Digests, type Pdu} from './support/wire.js'

const BOTH = {header: true, data: true}

/** A target that is still all right after what was done to it: nothing is under way, nobody is connected, the next one is served. */
async function unharmed({port, server, device}: Served): Promise<void> {
  device.mode = 'now'
  device.release()
  await eventually(() => server.connections === 0, 'nobody is connected')
  await eventually(() => device.running === 0, 'nothing is under way')
  const initiator = await Initiator.open(port)
  await initiator.write(0, Buffer.alloc(4096, 1))
  if (!(await initiator.read(0, 8)).equals(Buffer.alloc(4096, 1))) throw new Error('not what was written')
  await initiator.logout()
  await initiator.end()
  await eventually(() => server.connections === 0, 'nobody is connected')
  // One slab per stream that was just closed may still be on its way back.
  await eventually(() => slabs.inUse <= 2, `${slabs.inUse} slabs are in use`)
}

async function open(t: Test): Promise<Served> {
  // A request that lacks its end is only noticed by the clock.
  return serve(t, {device: recordedDevice(), checkEveryMs: 5, timeouts: {loginMs: 2000}})
}

/** True when these are whole PDUs with opcodes of a target; the last one may be cut, as a connection that is cut off is. */
function arePdus(answer: Buffer, digests: Digests = {}): boolean {
  const opcodes = new Set([OP.NOP_IN, OP.RESPONSE, OP.TMF_RESPONSE, OP.LOGIN_RESPONSE, OP.TEXT_RESPONSE, OP.DATA_IN, OP.LOGOUT_RESPONSE, OP.R2T, OP.ASYNC, OP.REJECT])
  let at = 0
  while (answer[at] === OP.LOGIN_RESPONSE && at + 48 <= answer.length) at += 48 + Math.ceil((answer.readUInt32BE(at + 4) & 0xffffff) / 4) * 4
  return decodeAll(answer.subarray(at), digests).every(pdu => opcodes.has(pdu.opcode))
}

t.test('each byte of the header of each request, wrong', async t => {
  const served = await open(t)
  const login = recordedLogin()
  const requests = recordedRequests()
  const encoded = requests.map(pdu => encode(pdu))
  let answered = 0
  for (const index of requests.keys()) {
    for (let at = 0; at < 48; at++) {
      for (const change of [0x01, 0x80, 0xff]) {
        const wrong = Buffer.from(encoded[index]!)
        wrong[at]! ^= change
        const answer = await converse(served.port, [Buffer.concat([login, ...encoded.slice(0, index), wrong, ...encoded.slice(index + 1)])])
        if (!arePdus(answer)) t.fail(`request ${index}, byte ${at} changed by ${change}: ${answer.toString('hex')}`)
        answered++
      }
    }
  }
  t.equal(answered, requests.length * 48 * 3)
  await unharmed(served)
  const reasons = new Set(served.reasons().map(reason => reason.replace(/.*connection closed in the middle of a message/, 'closed').replace(/\d+/g, 'N')))
  t.same([...reasons].sort(), ['N bytes of data in one PDU, N are agreed', 'closed'])
})

t.test('each byte of a login request, wrong', async t => {
  const served = await open(t)
  const login = recordedLogin()
  const firstBytes = 48 + Math.ceil((login.readUInt32BE(4) & 0xffffff) / 4) * 4
  for (let at = 0; at < firstBytes + 48; at++) {
    for (const change of [0x01, 0x20, 0x80, 0xff]) {
      const wrong = Buffer.from(login)
      wrong[at]! ^= change
      const answer = await converse(served.port, [wrong])
      if (!arePdus(answer)) t.fail(`byte ${at} changed by ${change}: ${answer.toString('hex')}`)
    }
  }
  await unharmed(served)
})

t.test('any bytes, before and after a login', async t => {
  const served = await open(t)
  const parts = fc.array(fc.uint8Array({maxLength: 300}), {maxLength: 4})
  const runs = {numRuns: 150}
  await fc.assert(fc.asyncProperty(parts, async all => void (await converse(served.port, all.map(part => Buffer.from(part))))), runs)
  await fc.assert(
    fc.asyncProperty(parts, async all => {
      const answer = await converse(served.port, [recordedLogin(), ...all.map(part => Buffer.from(part))])
      if (!arePdus(answer)) throw new Error(answer.toString('hex'))
    }),
    runs,
  )
  await unharmed(served)
})

t.test('any logins', async t => {
  const served = await open(t)
  const key = fc.constantFrom('InitiatorName', 'TargetName', 'SessionType', 'AuthMethod', 'CHAP_A', 'CHAP_R', 'HeaderDigest', 'MaxBurstLength', 'FirstBurstLength', 'MaxRecvDataSegmentLength', 'X-any', '', 'é')
  const value = fc.oneof(fc.constantFrom('iqn.2019-10.io.longhorn:vol', 'Normal', 'Discovery', 'None', 'CHAP', 'Yes', '512', '5', '0x00', 'Reject', ''), fc.string({maxLength: 40}))
  const pairs = fc.array(fc.tuple(key, value), {maxLength: 12}).map(all => Buffer.from(all.map(([name, what]) => `${name}=${what}\0`).join('')))
  const request = fc
    .record({transit: fc.boolean(), moreFollows: fc.boolean(), stage: fc.nat(3), next: fc.nat(3), tsih: fc.nat(3), text: fc.oneof(pairs, pairs, fc.uint8Array({maxLength: 100}).map(bytes => Buffer.from(bytes)))})
    .map(fields => encode(loginPdu(fields)))
  await fc.assert(
    fc.asyncProperty(fc.array(request, {maxLength: 6}), async requests => {
      const answer = await converse(served.port, [Buffer.concat(requests)])
      if (!arePdus(answer)) throw new Error(answer.toString('hex'))
    }),
    {numRuns: 300},
  )
  await unharmed(served)
})

/** Requests with anything in their fields, the more dangerous values more often. */
const anyRequest: fc.Arbitrary<Pdu> = (() => {
  const u32 = fc.oneof(fc.constantFrom(0, 1, 2, 3, 10, 0xffffffff, 0x80000000), fc.nat(20), fc.nat(0xffffffff))
  return fc.record({
    opcode: fc.oneof(fc.constantFrom(OP.COMMAND, OP.COMMAND | 0x40, OP.DATA_OUT, OP.DATA_OUT, OP.TMF | 0x40, OP.NOP_OUT | 0x40, OP.TEXT | 0x40, OP.SNACK), fc.nat(0x7f)),
    flags: fc.oneof(fc.constantFrom(0x80, 0xa1, 0x21, 0xc1, 0xe1, 0x00, 0x40), fc.nat(255)),
    lun: fc.constantFrom(0, 1, 2).map(lun => Buffer.from([0, lun, 0, 0, 0, 0, 0, 0])),
    itt: u32,
    at20: fc.oneof(fc.constantFrom(0xffffffff, 0, 1, 512, 1024, 0x10000), u32),
    at24: fc.oneof(fc.nat(12), u32),
    at36: fc.nat(3),
    at40: fc.constantFrom(0, 512, 1024, 7),
    cdb: fc.constantFrom('280000000000000001', '2a0000000000000003', '2a000000000000ffff', '28000000000000ffff', '00', '1500000010', 'e0', 'e1', 'e200000000000002').map(code => Buffer.from(code.padEnd(32, '0'), 'hex')),
    data: fc.oneof(fc.constant(0), fc.nat(100), fc.constantFrom(512, 1024, 3000)).map(length => Buffer.alloc(length, 1)),
    ahs: fc.oneof(fc.constant(Buffer.alloc(0)), fc.constant(Buffer.alloc(0)), fc.constantFrom('00050200', '00010100', 'ffffffff').map(code => Buffer.from(code, 'hex'))),
  })
})()

for (const digests of [{}, BOTH]) {
  t.test(`any requests, digests: ${JSON.stringify(digests)}`, async t => {
    const served = await open(t)
    for (const mode of ['now', 'later', 'held'] as const) {
      served.device.mode = mode
      await fc.assert(
        fc.asyncProperty(fc.array(anyRequest, {maxLength: 25}), async requests => {
          const answer = await converse(served.port, [recordedLogin(digests), Buffer.concat(requests.map(pdu => encode(pdu, digests)))])
          if (!arePdus(answer, digests)) throw new Error(answer.toString('hex'))
          served.device.release()
        }),
        {numRuns: 150},
      )
    }
    await unharmed(served)
  })
}

for (const digests of [{}, BOTH]) {
  t.test(`a session with bytes changed, lost and added, digests: ${JSON.stringify(digests)}`, async t => {
    const served = await open(t)
    const bytes = recordedSession(digests)
    const change = fc.record({at: fc.nat(bytes.length - 1), what: fc.constantFrom('set', 'set', 'cut', 'add'), bytes: fc.uint8Array({minLength: 1, maxLength: 6})})
    for (const mode of ['now', 'held'] as const) {
      served.device.mode = mode
      await fc.assert(
        fc.asyncProperty(fc.array(change, {minLength: 1, maxLength: 5}), async changes => {
          const mutated = changes.reduce((whole, {at, what, bytes}) => {
            const skipped = what === 'add' ? 0 : bytes.length
            return Buffer.concat([whole.subarray(0, at), what === 'cut' ? Buffer.alloc(0) : bytes, whole.subarray(at + skipped)])
          }, bytes)
          await converse(served.port, [mutated])
          served.device.release()
        }),
        {numRuns: 250},
      )
    }
    await unharmed(served)
  })
}

t.test('memory stays where it was', async t => {
  const served = await open(t)
  const bytes = recordedSession()
  for (let count = 0; count < 50; count++) await converse(served.port, [bytes.subarray(0, bytes.length - count * 7)])
  const {inUse} = slabs
  for (let count = 0; count < 300; count++) await converse(served.port, [bytes.subarray(0, bytes.length - count * 7)])
  await unharmed(served)
  t.ok(slabs.inUse <= inUse + 1, `${slabs.inUse} slabs in use, ${inUse} before`)
})
