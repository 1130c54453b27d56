import fc from 'fast-check'
import t, {type Test} from 'tap'
import {serve, type Served} from './support/served.js'
import {converse, sessionBytes, sessionDevice, sessionRequests} from './support/session.js'
import {CMD, fullHandshake, infoData, metaData, option, request, u16, u32, u64} from './support/wire.js'

/** A server that is still all right after what was done to it: nothing is in flight, nobody is connected, the next client is served. */
async function unharmed({path, server, device}: Served): Promise<boolean> {
  const answer = await converse(path, [Buffer.concat([fullHandshake(), request({command: CMD.READ, length: 4, cookie: 99n}), request({command: CMD.DISC})])])
  return server.connections === 0 && device.inFlight === 0 && answer.length === HANDSHAKE_BYTES + 32 && areChunks(answer.subarray(HANDSHAKE_BYTES))
}

/** Length of the answer to fullHandshake(''). */
const HANDSHAKE_BYTES = 18 + 20 + 39 + 20 + 32 + 34 + 20

/** True when these are whole chunks, one after the other; the last one may be cut, as a connection that is cut off is. */
function areChunks(bytes: Buffer): boolean {
  let at = 0
  while (at + 20 <= bytes.length) {
    if (bytes.readUInt32BE(at) !== 0x668e33ef) return false
    at += 20 + bytes.readUInt32BE(at + 16)
  }
  return true
}

async function open(t: Test): Promise<Served> {
  return serve(t, {device: sessionDevice(), handshakeTimeoutMs: 2000})
}

t.test('each byte of a request, wrong', async t => {
  const served = await open(t)
  const [read, write] = sessionRequests()
  let answered = 0
  for (const bytes of [read!, write!]) {
    for (let at = 0; at < 28; at++) {
      for (const value of [0x00, 0x01, 0x7f, 0x80, 0xff]) {
        const wrong = Buffer.from(bytes)
        wrong[at] = value
        const answer = await converse(served.path, [Buffer.concat([fullHandshake(), wrong, ...sessionRequests()])])
        if (answer.length > HANDSHAKE_BYTES) answered++
        if (!areChunks(answer.subarray(HANDSHAKE_BYTES))) t.fail(`byte ${at} as ${value}: ${answer.toString('hex')}`)
      }
    }
  }
  t.ok(answered > 200, 'most of them are still requests, and answered')
  const reasons = new Set(served.reasons().map(reason => reason.replace(/\d+/g, 'N')))
  t.same([...reasons].sort(), ['a request without its magic number', 'nbd client N: connection closed in the middle of a message'])
  t.ok(await unharmed(served))
})

t.test('each byte of an option, wrong', async t => {
  const served = await open(t)
  const options = [option(7, infoData('vol', 3)), option(10, metaData('vol', 'base:allocation')), option(1, Buffer.from('vol')), option(3)]
  for (const bytes of options) {
    for (let at = 0; at < bytes.length; at++) {
      for (const value of [0x00, 0x01, 0x7f, 0xff]) {
        const wrong = Buffer.from(bytes)
        wrong[at] = value
        const answer = await converse(served.path, [Buffer.concat([u32(3), option(8), wrong, option(2)])])
        if (answer.length < 18) t.fail(`byte ${at} as ${value}: not even a greeting`)
      }
    }
  }
  t.ok(await unharmed(served))
})

t.test('any bytes', async t => {
  const served = await open(t)
  await fc.assert(
    fc.asyncProperty(fc.array(fc.uint8Array({maxLength: 200}), {maxLength: 4}), async parts => {
      await converse(served.path, parts.map(part => Buffer.from(part)))
    }),
    {numRuns: 200},
  )
  t.ok(await unharmed(served))
})

t.test('any options', async t => {
  const served = await open(t)
  const name = fc.constantFrom('', 'vol', 'other', '\0', 'ü'.repeat(100))
  const data = fc.oneof(
    fc.uint8Array({maxLength: 300}).map(bytes => Buffer.from(bytes)),
    fc.tuple(name, fc.array(fc.nat(5))).map(([text, wanted]) => infoData(text, ...wanted)),
    fc.tuple(name, fc.array(fc.constantFrom('base:', 'base:allocation', 'x', ''))).map(([text, queries]) => metaData(text, ...queries)),
  )
  const anyOption = fc.tuple(fc.oneof(fc.nat(12), fc.nat(0xffffffff)), data, fc.constantFrom(0, 0, 0, 1, -1, 70_000)).map(([code, bytes, lie]) => {
    const whole = option(code, bytes)
    whole.writeUInt32BE(Math.max(0, bytes.length + lie), 12)
    return whole
  })
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(0, 1, 2, 3), fc.array(anyOption, {maxLength: 12}), async (flags, options) => {
      const answer = await converse(served.path, [Buffer.concat([u32(flags), ...options])])
      if (answer.length < 18) throw new Error('no greeting')
    }),
    {numRuns: 200},
  )
  t.ok(await unharmed(served))
})

t.test('any requests', async t => {
  const served = await open(t)
  const offset = fc.oneof(fc.nat(1024 * 1024), fc.bigInt({min: 0n, max: 2n ** 64n - 1n}))
  const length = fc.oneof(fc.nat(10), fc.nat(300_000), fc.nat(0xffffffff))
  const anyRequest = fc
    .record({command: fc.oneof(fc.nat(8), fc.nat(0xffff)), flags: fc.oneof(fc.constant(0), fc.nat(31), fc.nat(0xffff)), cookie: fc.bigInt({min: 0n, max: 2n ** 64n - 1n}), offset, length, sent: fc.nat(400)})
    .map(({command, flags, cookie, offset, length, sent}) =>
      Buffer.concat([u32(0x25609513), u16(flags), u16(command), u64(cookie), u64(offset), u32(length), Buffer.alloc(command === 1 ? Math.min(length, sent) : 0, 1)]),
    )
  for (const mode of ['now', 'later'] as const) {
    served.device.mode = mode
    await fc.assert(
      fc.asyncProperty(fc.array(anyRequest, {maxLength: 20}), async requests => {
        const answer = await converse(served.path, [Buffer.concat([fullHandshake(), ...requests])])
        if (!areChunks(answer.subarray(HANDSHAKE_BYTES))) throw new Error('replies out of step')
      }),
      {numRuns: 150},
    )
  }
  served.device.bytes.fill(0)
  served.device.mode = 'now'
  t.ok(await unharmed(served))
})

t.test('a session with bytes changed, lost and added', async t => {
  const served = await open(t)
  const bytes = sessionBytes()
  const change = fc.record({at: fc.nat(bytes.length - 1), what: fc.constantFrom('set', 'cut', 'add'), bytes: fc.uint8Array({minLength: 1, maxLength: 6})})
  await fc.assert(
    fc.asyncProperty(fc.array(change, {minLength: 1, maxLength: 5}), async changes => {
      const mutated = changes.reduce((whole, {at, what, bytes}) => {
        const skipped = what === 'add' ? 0 : bytes.length
        return Buffer.concat([whole.subarray(0, at), what === 'cut' ? Buffer.alloc(0) : bytes, whole.subarray(at + skipped)])
      }, bytes)
      await converse(served.path, [mutated])
    }),
    {numRuns: 400},
  )
  served.device.bytes.fill(0)
  t.ok(await unharmed(served))
})
