import t from 'tap'
import {queryExport} from '../../../src/drivers/attach/nbd-export.js'
import {exportOf, FLAGS, GREETING, reply, serveTalk} from './support/fake-nbd-server.js'

const ALL = FLAGS.has | FLAGS.flush | FLAGS.trim | FLAGS.zeroes

t.test('what a server says of an export', async t => {
  const found = await queryExport(await serveTalk(t, exportOf(1n << 40n, ALL)), 60_000)
  t.same(found, {sizeBytes: 2 ** 40, readOnly: false, canFlush: true, canTrim: true, canWriteZeroes: true, flags: ALL})
  const little = await queryExport(await serveTalk(t, exportOf(512n, FLAGS.has | FLAGS.readOnly)), 60_000)
  t.same(little, {sizeBytes: 512, readOnly: true, canFlush: false, canTrim: false, canWriteZeroes: false, flags: FLAGS.has | FLAGS.readOnly})
})

t.test('replies may arrive byte by byte', async t => {
  const endpoint = await serveTalk(t, socket => {
    const info = Buffer.from('0000000000000010000000e5', 'hex')
    const bytes = Buffer.concat([GREETING, reply(3, Buffer.from('000400000000', 'hex')), reply(3, info), reply(1)])
    socket.setNoDelay()
    void (async () => {
      for (const byte of bytes) {
        socket.write(Buffer.from([byte]))
        await new Promise(resolve => setImmediate(resolve))
      }
    })()
  })
  t.match(await queryExport(endpoint, 60_000), {sizeBytes: 0x100000, canFlush: true})
})

t.test('an export that does not exist', async t => {
  const endpoint = await serveTalk(t, socket => socket.write(Buffer.concat([GREETING, reply(0x8000_0006)])))
  await t.rejects(queryExport(endpoint, 60_000), {code: 'LH_NOT_FOUND', message: /"vol"/})
})

t.test('what is not NBD, or breaks off', async t => {
  const talks: Record<string, Buffer> = {
    'HTTP': Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n'),
    'half a greeting': GREETING.subarray(0, 9),
    'nothing after the greeting': GREETING,
    'another refusal': Buffer.concat([GREETING, reply(0x8000_0002, Buffer.from('not for you'))]),
    'a bad magic number': Buffer.concat([GREETING, Buffer.alloc(20)]),
    'a reply that never ends': Buffer.concat([GREETING, reply(3, Buffer.alloc(0), 0xffff_ffff)]),
    'no description': Buffer.concat([GREETING, reply(1)]),
    'more than a number can hold': Buffer.concat([GREETING, reply(3, Buffer.from('0000ffffffffffffffff0001', 'hex')), reply(1)]),
  }
  for (const [what, bytes] of Object.entries(talks)) {
    const endpoint = await serveTalk(t, socket => socket.resume().end(bytes))
    await t.rejects(queryExport(endpoint, 60_000), {code: 'LH_PROTOCOL'}, what)
  }
})

t.test('a server that is silent', async t => {
  const endpoint = await serveTalk(t, () => undefined)
  await t.rejects(queryExport(endpoint, 50), {code: 'LH_TIMEOUT'})
  await t.rejects(queryExport(endpoint, 60_000, AbortSignal.timeout(20)), {name: 'TimeoutError'})
  await t.rejects(queryExport(endpoint, 60_000, AbortSignal.abort(new Error('no more'))), {message: 'no more'})
})

t.test('a server that is not there', async t => {
  const endpoint = {kind: 'nbd', address: {kind: 'unix', path: '/nonexistent/s'}, exportName: ''} as const
  await t.rejects(queryExport(endpoint, 60_000), {code: 'LH_UNREACHABLE', message: /ENOENT/})
})
