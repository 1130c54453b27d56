// Recorded exchanges of upstream's peers: our receiver is sent what upstream's sender sent, our sender is answered what upstream's receiver answered.
import {readFileSync, writeFileSync} from 'node:fs'
import {createServer, connect, type AddressInfo, type Socket} from 'node:net'
import {once} from 'node:events'
import {join} from 'node:path'
import t, {type Test} from 'tap'
import {scannerFor} from '../../../src/lib/sys/file-extents.js'
import type {LayerMeta} from '../../../src/replica/layer-meta.js'
import {dataIn} from '../../../src/replica/purge/copy-data.js'
import {LayerSink} from '../../../src/replica/ssync/layer-sink.js'
import {MetaSink} from '../../../src/replica/ssync/meta-sink.js'
import {Receiver} from '../../../src/replica/ssync/receiver.js'
import {changeTime} from '../../../src/replica/ssync/recorded-checksum.js'
import {sendFile} from '../../../src/replica/ssync/send-file.js'
import {openFileSource} from '../../../src/replica/ssync/send-source.js'
import {toTransferFile} from '../../../src/replica/ssync/transfer-names.js'
import type {Sink} from '../../../src/replica/ssync/sink.js'
import {memoryLog} from '../../engine/support/fake-replicas.js'
import {open} from 'node:fs/promises'
import {LOOPBACK, writeSparse} from './support/layers.js'
import {parseMessage, recording, requestKey, type HttpMessage, type Run} from './support/recording.js'

const LAYER = 'volume-snap-x.img'
const SIZE = 65_536
const META = '{"Name":"volume-head-000.img","Parent":"","Removed":false,"UserCreated":true,"Created":"2026-11-20T09:39:34Z","Labels":{"k1":"v1"}}\n'

const SENT = [
  [0, Buffer.concat([Buffer.alloc(4096, 'A'), Buffer.alloc(4096, 'B')])],
  [20_480, Buffer.concat([Buffer.alloc(4096, 'F'), Buffer.alloc(4096, 'G')])],
] as const
const DIFFERENT = [
  [0, Buffer.concat([Buffer.alloc(4096, 'A'), Buffer.alloc(4096, 'z')])],
  [20_480, SENT[1][1]],
  [40_960, Buffer.alloc(4096, 'y')],
] as const

/** Sends the sender's side of a recording, over as many connections, and compares the answers with the recorded ones. */
async function replay(t: Test, port: number, runs: readonly Run[], expected: (request: string, answer: HttpMessage) => HttpMessage): Promise<void> {
  const sockets = new Map<number, Incoming>()
  const asked = new Map<number, string>()
  for (const {connection, from, bytes} of runs) {
    if (!sockets.has(connection)) sockets.set(connection, new Incoming(connect(port, '127.0.0.1')))
    const socket = sockets.get(connection)!
    if (from === 'sender') {
      asked.set(connection, requestKey(parseMessage(bytes)!.message.start))
      socket.socket.write(bytes)
    } else {
      const request = asked.get(connection)!
      t.same(await socket.message(), expected(request, parseMessage(bytes)!.message), request)
    }
  }
  for (const {socket} of sockets.values()) socket.destroy()
}

class Incoming {
  #bytes = Buffer.alloc(0)

  constructor(readonly socket: Socket) {
    socket.on('data', (chunk: Buffer) => (this.#bytes = Buffer.concat([this.#bytes, chunk])))
    socket.on('error', () => undefined)
  }

  async message(): Promise<HttpMessage> {
    for (;;) {
      const parsed = parseMessage(this.#bytes)
      if (parsed !== undefined) {
        this.#bytes = Buffer.from(parsed.rest)
        return parsed.message
      }
      if (this.socket.readableEnded || this.socket.destroyed) throw new Error('the receiver has ended the connection')
      await Promise.race([once(this.socket, 'data'), once(this.socket, 'close')])
    }
  }
}

async function receiver(t: Test, sink: Sink): Promise<Receiver> {
  const started = await Receiver.start({sink, listen: LOOPBACK, log: memoryLog().log})
  t.teardown(() => started.destroy(new Error('the test is over')))
  return started
}

const asRecorded = (_: string, answer: HttpMessage): HttpMessage => answer

t.test("our receiver does what upstream's sender expects", async t => {
  t.test('a new file', async t => {
    const directory = t.testdir({})
    const started = await receiver(t, new LayerSink(directory, LAYER, SIZE))
    await replay(t, started.port, recording('new-file'), asRecorded)
    t.same(await started.done, {opened: true, compared: false, checksum: undefined})
    await checkLayer(t, directory)
  })

  t.test('a file that is there and differs', async t => {
    const directory = t.testdir({})
    writeSparse(join(directory, LAYER), SIZE, DIFFERENT)
    const started = await receiver(t, new LayerSink(directory, LAYER, SIZE))
    await replay(t, started.port, recording('existing-file'), asRecorded)
    await started.done
    await checkLayer(t, directory)
  })

  t.test('a file that is there, by its recorded checksum', async t => {
    const directory = t.testdir({})
    writeSparse(join(directory, LAYER), SIZE, SENT)
    const text = `{"method":"crc64","checksum":"0ba1d10160116015","change_time":"${await changeTime(join(directory, LAYER))}","last_hashed_at":"","silently_corrupted":false}\n`
    writeFileSync(join(directory, `${LAYER}.checksum`), text)
    const started = await receiver(t, new LayerSink(directory, LAYER, SIZE))
    await replay(t, started.port, recording('identical'), (request, answer) => (request.startsWith('GET') ? {...answer, body: Buffer.from(text)} : answer))
    t.same(await started.done, {opened: false, compared: true, checksum: {method: 'crc64', checksum: '0ba1d10160116015'}})
    await checkLayer(t, directory)
  })

  t.test('a description', async t => {
    const accepted: LayerMeta[] = []
    const started = await receiver(t, new MetaSink(`${LAYER}.meta`, async meta => void accepted.push(meta)))
    await replay(t, started.port, recording('meta'), asRecorded)
    await started.done
    t.match(accepted, [{name: 'volume-head-000.img', parent: '', userCreated: true, labels: {k1: 'v1'}}])
  })
})

async function checkLayer(t: Test, directory: string): Promise<void> {
  await using file = await open(join(directory, LAYER))
  const content = Buffer.alloc(SIZE)
  for (const [offset, data] of SENT) data.copy(content, offset)
  t.ok(readFileSync(join(directory, LAYER)).equals(content), 'the content')
  const extents = dataIn(scannerFor(file.fd), file.fd, {offset: 0, length: SIZE})
  t.same(extents, SENT.map(([offset, {length}]) => ({offset, length})), 'and the holes')
}

t.test("our sender asks upstream's receiver what upstream's sender asks", async t => {
  for (const [name, fastSync] of [['new-file', false], ['existing-file', false], ['identical', true], ['meta', false]] as const) {
    t.test(name, async t => {
      const directory = t.testdir({})
      writeSparse(join(directory, LAYER), SIZE, SENT)
      writeFileSync(join(directory, `${LAYER}.meta`), META)
      const runs = recording(name)
      const answers = answersOf(runs)
      const requests: string[] = []
      const server = createServer(socket => void answerAll(socket, answers, requests))
      server.listen(0, '127.0.0.1')
      await once(server, 'listening')
      t.teardown(() => server.close())
      const file = toTransferFile(name === 'meta' ? `${LAYER}.meta` : LAYER, 'file')
      const source = await openFileSource(directory, file)
      t.teardown(() => source.close())
      const recorded = fastSync ? {method: 'crc64', checksum: '0ba1d10160116015'} : undefined
      const to = {...LOOPBACK, port: (server.address() as AddressInfo).port}
      await sendFile(source, {to, timeoutMs: 60_000, directIo: file.kind === 'data', recorded})
      // The end of a piece of a .meta is announced exactly; a new file is one hole already.
      const theirs = [...answers.keys()].filter(key => !(name === 'new-file' && key.includes('sendHole'))).map(key => key.replace(/^(.*writeData.*end=)4096( \d+)$/, '$1132$2'))
      t.same(requests.sort(), theirs.sort())
    })
  }
})

/** The raw answers by their requests, with the length and the bytes of their bodies. */
function answersOf(runs: readonly Run[]): Map<string, Buffer> {
  const answers = new Map<string, Buffer>()
  const asked = new Map<number, string>()
  for (const {connection, from, bytes} of runs) {
    if (from === 'sender') {
      const {message} = parseMessage(bytes)!
      asked.set(connection, `${requestKey(message.start)} ${message.body.length}`)
    } else answers.set(asked.get(connection)!, bytes)
  }
  return answers
}

async function answerAll(socket: Socket, answers: ReadonlyMap<string, Buffer>, requests: string[]): Promise<void> {
  const incoming = new Incoming(socket)
  for (;;) {
    const message = await incoming.message().catch(() => undefined)
    if (message === undefined) return
    const key = `${requestKey(message.start)} ${message.body.length}`
    requests.push(key)
    socket.write(answers.get(key) ?? answers.get(key.replace('end=132', 'end=4096')) ?? 'HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n')
    // Upstream's ends when it has answered this.
    if (key.includes('/close')) socket.end()
  }
}
