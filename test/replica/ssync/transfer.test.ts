// Our sender and our receiver, and what goes wrong between them.
import {readFileSync, statSync, writeFileSync, existsSync, linkSync} from 'node:fs'
import {createServer, request as httpRequest} from 'node:http'
import {once} from 'node:events'
import {connect, createServer as createTcpServer, type AddressInfo} from 'node:net'
import {join} from 'node:path'
import t, {type Test} from 'tap'
import {LonghornError} from '../../../src/lib/errors.js'
import {PATIENCE, type Patience} from '../../../src/replica/ssync/exchange-client.js'
import {LayerSink} from '../../../src/replica/ssync/layer-sink.js'
import {MetaSink} from '../../../src/replica/ssync/meta-sink.js'
import {Receiver, type Received} from '../../../src/replica/ssync/receiver.js'
import {ReceiverPorts} from '../../../src/replica/ssync/receiver-ports.js'
import {sendFile} from '../../../src/replica/ssync/send-file.js'
import {openFileSource} from '../../../src/replica/ssync/send-source.js'
import type {Sink} from '../../../src/replica/ssync/sink.js'
import {changeTime, currentChecksum, recordChecksum} from '../../../src/replica/ssync/recorded-checksum.js'
import {toTransferFile} from '../../../src/replica/ssync/transfer-names.js'
import {memoryLog} from '../../engine/support/fake-replicas.js'
import {seededRandom} from '../support/random.js'
import {mountSmall, SMALL_FILE_SYSTEMS} from '../support/small-file-system.js'
import {LOOPBACK, someBlocks, writeSparse} from './support/layers.js'

const LAYER = 'volume-snap-x.img'
const MB = 1024 ** 2
const SIZE = 16 * MB
const QUICK: Patience = {...PATIENCE, openMs: 2000, openDelayMs: 10, delayMs: 1, longestDelayMs: 5}

async function receive(t: Test, sink: Sink, more: {idleMs?: number; onProgress?: (bytes: number) => void} = {}): Promise<Receiver> {
  const receiver = await Receiver.start({sink, listen: LOOPBACK, log: memoryLog().log, ...more})
  t.teardown(() => receiver.destroy(new Error('the test is over')))
  return receiver
}

async function send(directory: string, port: number, more: {patience?: Patience; timeoutMs?: number; signal?: AbortSignal; recorded?: {method: string; checksum: string}} = {}): Promise<void> {
  const source = await openFileSource(directory, toTransferFile(LAYER, 'file'))
  try {
    await sendFile(source, {to: {...LOOPBACK, port}, timeoutMs: 60_000, directIo: true, patience: QUICK, ...more})
  } finally {
    await source.close()
  }
}

async function sync(t: Test, from: string, to: string, recorded?: {method: string; checksum: string}): Promise<Received & {bytes: number}> {
  let bytes = 0
  const receiver = await receive(t, new LayerSink(to, LAYER, SIZE), {onProgress: count => (bytes += count)})
  await send(from, receiver.port, recorded === undefined ? {} : {recorded})
  return {...(await receiver.done), bytes}
}

function places(t: Test): {from: string; to: string} {
  const base = t.testdir({from: {}, to: {}})
  return {from: join(base, 'from'), to: join(base, 'to')}
}

function same(t: Test, from: string, to: string): void {
  t.ok(readFileSync(join(from, LAYER)).equals(readFileSync(join(to, LAYER))), 'the content')
  t.ok(Math.abs(statSync(join(from, LAYER)).blocks - statSync(join(to, LAYER)).blocks) <= 64, 'the space it takes')
}

/** One request, as somebody might make it. Resolves to the status, 0 when there is no answer. */
async function ask(port: number, method: string, target: string, body?: Buffer, headers: Record<string, string | number> = {}): Promise<{status: number; text: string}> {
  return new Promise(resolve => {
    const request = httpRequest({host: '127.0.0.1', port, method, path: target, headers, agent: false}, response => {
      let text = ''
      response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk))
      response.on('close', () => resolve({status: response.statusCode ?? 0, text}))
    })
    request.on('error', () => resolve({status: 0, text: ''}))
    request.end(body)
  })
}

const writeData = (begin: number, end: number): string => `/v1-ssync/writeData?begin=${begin}&end=${end}`
const OPEN = `/v1-ssync/open?begin=0&end=${SIZE}&directIO=true`

t.test('layers of all kinds, new ones and over others', async t => {
  const random = seededRandom(t)
  for (let round = 0; round < 4; round++) {
    const {from, to} = places(t)
    const size = round === 3 ? 5 * MB + 512 : SIZE
    writeSparse(join(from, LAYER), size, round === 0 ? [] : someBlocks(random, size - 512, 40))
    if (round % 2 === 1) writeSparse(join(to, LAYER), SIZE, someBlocks(random, SIZE, 40))
    t.match(await sync(t, from, to), {opened: true, compared: false})
    same(t, from, to)
    t.equal(statSync(join(to, LAYER)).size, size)
    const before = statSync(join(to, LAYER)).mtimeMs
    const {bytes} = await sync(t, from, to)
    t.ok(bytes >= 0)
    same(t, from, to)
    t.ok(statSync(join(to, LAYER)).mtimeMs >= before)
  }
})

t.test('what is equal does not travel', async t => {
  const {from, to} = places(t)
  const random = seededRandom(t)
  const data = Buffer.alloc(8 * MB)
  random.fill(data)
  writeSparse(join(from, LAYER), SIZE, [[0, data]])
  data[5 * MB] = data[5 * MB]! ^ 1
  writeSparse(join(to, LAYER), SIZE, [[0, data]])
  const sink = new LayerSink(to, LAYER, SIZE)
  let written = 0
  const counting: Sink = Object.assign(Object.create(sink) as Sink, {
    maxBytes: SIZE,
    open: (size: number) => sink.open(size),
    write: (piece: Buffer, offset: number) => ((written += piece.length), sink.write(piece, offset)),
    punch: (range: {begin: number; end: number}) => sink.punch(range),
    checksum: (range: {begin: number; end: number}) => sink.checksum(range),
    finish: () => sink.finish(),
    abandon: () => sink.abandon(),
  })
  const receiver = await receive(t, counting)
  await send(from, receiver.port)
  await receiver.done
  same(t, from, to)
  t.equal(written, 2 * MB, 'one piece')
})

t.test('a file with a second name is not changed under that', async t => {
  const {from, to} = places(t)
  writeSparse(join(from, LAYER), SIZE, [[0, Buffer.alloc(4096, 1)]])
  writeSparse(join(to, LAYER), SIZE, [[4096, Buffer.alloc(4096, 2)]])
  linkSync(join(to, LAYER), join(to, 'volume-snap-other.img'))
  const other = readFileSync(join(to, 'volume-snap-other.img'))
  await sync(t, from, to)
  same(t, from, to)
  t.ok(readFileSync(join(to, 'volume-snap-other.img')).equals(other))
})

t.test('recorded checksums', async t => {
  const recorded = {method: 'crc64', checksum: '0ba1d10160116015'}
  const {from, to} = places(t)
  writeSparse(join(from, LAYER), SIZE, [[0, Buffer.alloc(MB, 1)]])
  t.match(await sync(t, from, to, recorded), {opened: true, compared: true, checksum: recorded}, 'the receiver has none')
  await recordChecksum(to, LAYER, recorded)
  t.same(await currentChecksum(to, LAYER), recorded)
  t.match(readFileSync(join(to, `${LAYER}.checksum`), 'utf8'), `"change_time":"${await changeTime(join(to, LAYER))}"`)
  t.match(await sync(t, from, to, recorded), {opened: false, compared: true}, 'the same one')
  t.match(await sync(t, from, to, {method: 'crc64', checksum: '1111111111111111'}), {opened: true, compared: true}, 'another one')
  t.notOk(existsSync(join(to, `${LAYER}.checksum`)), 'what is overwritten has none')
  for (const bad of ['', '{', '[]', '{"method":"crc64"}', `{"method":"crc64","checksum":"0ba1d10160116015","change_time":"2001-01-01 00:00:00 +0000 UTC"}`]) {
    writeFileSync(join(to, `${LAYER}.checksum`), bad)
    t.match(await sync(t, from, to, recorded), {opened: true, compared: true}, `damaged or outdated: ${bad}`)
    same(t, from, to)
  }
})

t.test('requests that make no sense change nothing and are refused', async t => {
  const {to} = places(t)
  writeSparse(join(to, LAYER), SIZE, [[0, Buffer.alloc(4096, 7)]])
  const before = readFileSync(join(to, LAYER))
  const receiver = await receive(t, new LayerSink(to, LAYER, SIZE))
  const refused = async (status: number, method: string, target: string, body?: Buffer, headers?: Record<string, string | number>): Promise<void> => {
    t.match(await ask(receiver.port, method, target, body, headers), {status}, `${method} ${target}`)
  }
  await refused(409, 'POST', writeData(0, 10), Buffer.alloc(10))
  await refused(409, 'GET', '/v1-ssync/getChecksum?begin=0&end=10')
  await refused(404, 'GET', '/')
  await refused(404, 'GET', '/v1-ssync/constructor')
  await refused(404, 'GET', '/v1-ssync/../../etc/passwd')
  await refused(405, 'POST', OPEN)
  await refused(405, 'GET', '/v1-ssync/close')
  await refused(404, 'GET', '/v1-ssync/getRecordedMetadata')
  for (const query of ['', 'begin=0', `end=${SIZE}`, 'begin=0&end=-1', 'begin=0&end=1e3', `begin=0&end=${SIZE}`, `begin=4096&end=${SIZE}&directIO=true`, `begin=0&end=${SIZE + 512}&directIO=false`, 'begin=0&end=513&directIO=true', 'begin=0&end=99999999999999999999&directIO=true', 'begin=0&end=4096&directIO=perhaps']) {
    await refused(400, 'GET', `/v1-ssync/open?${query}`)
  }
  t.ok(readFileSync(join(to, LAYER)).equals(before), 'nothing has changed')
  t.match(await ask(receiver.port, 'GET', OPEN), {status: 200, text: 'true'})
  t.match(await ask(receiver.port, 'GET', OPEN), {status: 200, text: 'true'}, 'asked again')
  await refused(409, 'GET', '/v1-ssync/open?begin=0&end=4096&directIO=true')
  await refused(400, 'POST', writeData(SIZE, SIZE + 4096), Buffer.alloc(10))
  await refused(400, 'POST', writeData(10, 5), Buffer.alloc(10))
  await refused(400, 'POST', writeData(0, 20), Buffer.alloc(10))
  await refused(413, 'POST', writeData(0, 10), Buffer.alloc(20))
  await refused(413, 'POST', writeData(0, 9 * MB))
  await refused(413, 'GET', `/v1-ssync/getChecksum?begin=0&end=${9 * MB}`)
  await refused(400, 'POST', `/v1-ssync/sendHole?begin=0&end=${SIZE + 4097}`)
  t.match(await ask(receiver.port, 'POST', writeData(4096, 4106), Buffer.alloc(10, 9)), {status: 200}, 'it goes on')
  t.match(await ask(receiver.port, 'POST', '/v1-ssync/close'), {status: 200})
  await receiver.done
  t.same(readFileSync(join(to, LAYER)).subarray(4096, 4107), Buffer.concat([Buffer.alloc(10, 9), Buffer.alloc(1)]))
  t.match(await ask(receiver.port, 'GET', OPEN), {status: 0}, 'it has ended')
})

t.test('no HTTP, and connections that break off', async t => {
  const {from, to} = places(t)
  writeSparse(join(from, LAYER), SIZE, [[0, Buffer.alloc(MB, 3)]])
  const receiver = await receive(t, new LayerSink(to, LAYER, SIZE))
  for (const bytes of [Buffer.alloc(100_000, 0xff), Buffer.from(`POST ${writeData(0, 4096)} HTTP/1.1\r\nContent-Length: 4096\r\n\r\nhalf`), Buffer.from('GET /v1-ssync/open')]) {
    const socket = connect(receiver.port, '127.0.0.1')
    socket.on('error', () => undefined)
    socket.end(bytes)
    socket.resume()
    await once(socket, 'close')
  }
  await ask(receiver.port, 'GET', OPEN)
  const socket = connect(receiver.port, '127.0.0.1')
  socket.on('error', () => undefined)
  socket.write(`POST ${writeData(0, MB)} HTTP/1.1\r\nHost: x\r\nContent-Length: ${MB}\r\n\r\n`)
  socket.write(Buffer.alloc(MB / 2, 9), () => socket.destroy())
  await once(socket, 'close')
  await send(from, receiver.port)
  await receiver.done
  same(t, from, to)
})

t.test('a way that loses connections: what was lost is sent again', async t => {
  const {from, to} = places(t)
  const random = seededRandom(t)
  writeSparse(join(from, LAYER), SIZE, someBlocks(random, SIZE, 60))
  const receiver = await receive(t, new LayerSink(to, LAYER, SIZE))
  let connections = 0
  const proxy = createTcpServer(near => {
    const cut = ++connections % 3 === 0 ? 1000 + random.below(200_000) : Infinity
    const far = connect(receiver.port, '127.0.0.1')
    let passed = 0
    near.on('data', chunk => {
      passed += chunk.length
      if (passed < cut) far.write(chunk)
      else near.destroy()
    })
    far.on('data', chunk => near.write(chunk))
    for (const [one, other] of [[near, far], [far, near]] as const) {
      one.on('error', () => undefined)
      one.on('close', () => other.destroy())
    }
  })
  proxy.listen(0, '127.0.0.1')
  await once(proxy, 'listening')
  t.teardown(() => proxy.close())
  await send(from, (proxy.address() as AddressInfo).port)
  await receiver.finish()
  same(t, from, to)
})

t.test('the sender gives up', async t => {
  const {from} = places(t)
  writeSparse(join(from, LAYER), SIZE, [[0, Buffer.alloc(4 * MB, 3)]])
  const asked: string[] = []
  const answer = async (statusOf: (target: string) => number): Promise<number> => {
    const server = createServer((request, response) => {
      const target = request.url ?? ''
      asked.push(target.replace(/^\/v1-ssync\/(\w+).*/, '$1'))
      request.resume()
      request.on('end', () => {
        response.statusCode = statusOf(target)
        response.end(target.includes('/open') ? 'false' : 'no')
      })
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    t.teardown(() => server.close())
    return (server.address() as AddressInfo).port
  }
  const failWrites = (status: number) => (target: string) => (target.includes('writeData') ? status : 200)
  await t.rejects(send(from, await answer(failWrites(500))), {code: 'LH_IO', message: /writeData was answered with 500/})
  t.ok(asked.filter(action => action === 'writeData').length >= QUICK.attempts, 'after several attempts')
  t.equal(asked.at(-1), 'close', 'and closes')
  for (const [status, code] of [[507, 'LH_NO_SPACE'], [403, 'LH_PROTOCOL'], [301, 'LH_PROTOCOL']] as const) {
    asked.length = 0
    await t.rejects(send(from, await answer(failWrites(status))), {code})
    t.ok(asked.filter(action => action === 'writeData').length <= 4, `${status} is final`)
    t.equal(asked.at(-1), 'close')
  }
  await t.rejects(send(from, await answer(() => 200), {signal: AbortSignal.abort(new LonghornError('INTERRUPTED', 'stop'))}), {code: 'LH_INTERRUPTED'})
  await t.rejects(send(from, 1, {patience: {...QUICK, openMs: 100}}), {code: 'LH_UNREACHABLE'}, 'nobody listens')
  const silent = createTcpServer(() => undefined)
  silent.listen(0, '127.0.0.1')
  await once(silent, 'listening')
  t.teardown(() => silent.close())
  await t.rejects(send(from, (silent.address() as AddressInfo).port, {timeoutMs: 50, patience: {...QUICK, openMs: 10}}), {code: 'LH_TIMEOUT'}, 'nobody answers')
})

t.test('a full disk', async t => {
  for (const kind of SMALL_FILE_SYSTEMS) {
    t.test(kind, async t => {
      const to = mountSmall(t, kind, kind === 'xfs' ? 320 : 24)
      if (to === undefined) return
      const {from} = places(t)
      const size = 512 * MB
      writeSparse(join(from, LAYER), size, [[0, Buffer.alloc(400 * MB, 5)]])
      const receiver = await receive(t, new LayerSink(to, LAYER, size))
      await t.rejects(send(from, receiver.port), {code: /^LH_(NO_SPACE|PROTOCOL)$/})
      await t.rejects(receiver.done, {code: 'LH_NO_SPACE', message: /no space left/})
    })
  }
})

t.test('a receiver that nobody talks to gives its port back', async t => {
  const {to} = places(t)
  const receiver = await receive(t, new LayerSink(to, LAYER, SIZE), {idleMs: 20})
  await t.rejects(receiver.done, {code: 'LH_TIMEOUT'})
  t.match(await ask(receiver.port, 'GET', OPEN), {status: 0})
})

t.test('descriptions that are none', async t => {
  const accepted: unknown[] = []
  for (const text of ['', '{', '{"Parent":"../../etc/passwd"}', '{"Parent":5}', '\0'.repeat(100)]) {
    const receiver = await receive(t, new MetaSink('x.meta', async meta => void accepted.push(meta)))
    await ask(receiver.port, 'GET', `/v1-ssync/open?begin=0&end=${text.length}&directIO=false`)
    if (text !== '') await ask(receiver.port, 'POST', writeData(0, 4096), Buffer.from(text))
    t.match(await ask(receiver.port, 'POST', '/v1-ssync/close'), {status: 422}, JSON.stringify(text))
    await t.rejects(receiver.done, {code: 'LH_CORRUPT'})
  }
  t.same(accepted, [])
  const receiver = await receive(t, new MetaSink('x.meta', async () => undefined))
  t.match(await ask(receiver.port, 'GET', `/v1-ssync/open?begin=0&end=${MB}&directIO=false`), {status: 400}, 'a huge one')
})

t.test('ports', async t => {
  const {to} = places(t)
  const taken = createTcpServer()
  taken.listen(0, '127.0.0.1')
  await once(taken, 'listening')
  t.teardown(() => taken.close())
  const {port} = taken.address() as AddressInfo
  const options = {sink: new LayerSink(to, LAYER, SIZE), log: memoryLog().log}
  await t.rejects(new ReceiverPorts('127.0.0.1', port, 1).start(options), {code: 'LH_BUSY', message: /all in use.*--sync-agent-port-count/})
  await t.rejects(new ReceiverPorts('127.0.0.1', port, 0).start(options), {code: 'LH_BUSY'})
})

t.test('names of files that may travel', async t => {
  t.same(toTransferFile('volume-snap-a.img', 'x'), {name: 'volume-snap-a.img', kind: 'data', layer: 'volume-snap-a.img'})
  t.same(toTransferFile('volume-head-001.img.meta', 'x'), {name: 'volume-head-001.img.meta', kind: 'meta', layer: 'volume-head-001.img'})
  for (const name of ['', '.', '..', 'volume-head-001.img', 'volume.meta', '../volume-snap-a.img', '/etc/passwd', 'volume-snap-../a.img', 'volume-snap-a.img.checksum', 'revision.counter', 'volume-snap-a.img.meta.meta', `volume-snap-${'x'.repeat(300)}.img`, 'volume-snap-a\0.img']) {
    t.throws(() => toTransferFile(name, 'x'), {code: 'LH_USAGE'}, name)
  }
})
