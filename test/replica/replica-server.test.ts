import {existsSync, mkdirSync, readFileSync, rmSync, writeFileSync} from 'node:fs'
import {join} from 'node:path'
import t, {type Test} from 'tap'
import {Listener} from '../../src/lib/net/listener.js'
import {closeFd} from '../../src/lib/net/socket-calls.js'
import type {TcpAddress} from '../../src/lib/address.js'
import {FRAME} from '../../src/protocol/frame.js'
import {startReplicaServer, type ReplicaServerOptions} from '../../src/replica/replica-server.js'
import {memoryLog} from '../engine/support/fake-replicas.js'
import {LOOPBACK, runReplica, SIZE_BYTES, type RunningReplica} from '../engine/support/running.js'
import {directoryState} from '../support/directory-state.js'
import {encodeFrame, FramePeer} from '../support/frames.js'
import {Pattern} from '../support/pattern.js'
import {shortDir} from '../support/short-dir.js'
import {dial} from '../support/sockets.js'
import {until} from '../support/until.js'

const pattern = new Pattern()

async function data(t: Test, {server}: RunningReplica): Promise<FramePeer> {
  const peer = new FramePeer(await dial({...server.address, port: server.address.port + 1}))
  t.teardown(() => peer.socket.destroy())
  return peer
}

async function ask(peer: FramePeer, frame: Parameters<FramePeer['send']>[0]): ReturnType<FramePeer['next']> {
  peer.send(frame)
  return peer.next()
}

async function state({rpc}: RunningReplica): Promise<string | undefined> {
  return (await rpc.replicaGet()).replica?.state
}

const KEY = '0f'.repeat(32)

t.test('from nothing to closed again', async t => {
  const replica = await runReplica(t, join(shortDir(t), 'r'), undefined)
  const {rpc, directory} = replica
  t.match(await rpc.replicaGet(), {replica: {state: 'initial', size: '0', dirty: false}})
  await t.rejects(rpc.replicaOpen({session: 'one'}), {code: 'LH_NOT_FOUND'})
  for (const size of ['', '-1', '1000', 'x', '99999999999999999999']) await t.rejects(rpc.replicaCreate({size}), {code: /^LH_(USAGE|PROTOCOL)$/}, size)
  t.match(await rpc.replicaCreate({size: `${SIZE_BYTES}`}), {replica: {state: 'closed', size: `${SIZE_BYTES}`}})
  await rpc.replicaCreate({size: `${SIZE_BYTES}`})
  await t.rejects(rpc.replicaCreate({size: `${2 * SIZE_BYTES}`}), {code: 'LH_CONFLICT'})
  const closed = directoryState(directory)
  t.match(await rpc.replicaOpen({session: 'one'}), {replica: {state: 'open', dirty: true, features: ['flush', 'fua', 'write-zeroes', 'block-status', 'write-atomic', 'snapshot-prepare', 'hello', 'members', 'rebuild', 'repair', 'scrub', 'scrub-runs', 'restore']}})
  t.match(readFileSync(join(directory, 'volume.meta'), 'utf8'), /"Dirty":true/)
  const peer = await data(t, replica)
  t.match(await ask(peer, {type: FRAME.WRITE, offset: 5n, payload: pattern.at(5, 9000)}), {type: FRAME.RESPONSE})
  t.equal(await state(replica), 'dirty')
  t.match(await rpc.replicaClose(), {replica: {state: 'closed', dirty: false}})
  t.match(await rpc.replicaClose(), {replica: {state: 'closed'}}, 'twice is success')
  t.match(await ask(peer, {type: FRAME.READ, size: 10}), {type: FRAME.ERROR, payload: Buffer.from('replica no longer exist')})
  t.match(await ask(peer, {type: FRAME.WRITE, payload: Buffer.alloc(200_000)}), {type: FRAME.ERROR})
  t.match(await ask(peer, {type: FRAME.BLOCK_STATUS, size: 10}), {type: FRAME.ERROR})
  const {'volume-head-000.img': head, 'volume.meta': _meta, ...rest} = directoryState(directory)
  t.match({...closed, ...rest}, closed, 'nothing but the data has changed')
  t.match(readFileSync(join(directory, 'volume.meta'), 'utf8'), /"Dirty":false/)
  t.not(head, closed['volume-head-000.img'])
  await rpc.replicaOpen({session: 'two'})
  t.equal(pattern.mismatch((await ask(peer, {type: FRAME.READ, offset: 5n, size: 9000})).payload, 5), -1, 'the same connection goes on')
})

t.test('one engine at a time', async t => {
  const replica = await runReplica(t, join(shortDir(t), 'r'), SIZE_BYTES)
  const {rpc} = replica
  await rpc.replicaOpen({session: 'one'})
  const first = await data(t, replica)
  await t.rejects(rpc.replicaOpen({session: 'one'}), {code: 'LH_BUSY'}, 'the same session again')
  await t.rejects(rpc.replicaOpen({session: ''}), {code: 'LH_BUSY'}, "upstream's engine, which has no session")
  t.match(await ask(first, {type: FRAME.WRITE, payload: pattern.at(0, 4096)}), {type: FRAME.RESPONSE})
  t.match(await rpc.replicaOpen({session: 'two'}), {replica: {state: 'dirty'}})
  await first.end()
  const second = await data(t, replica)
  t.same((await ask(second, {type: FRAME.READ, size: 4096})).payload, pattern.at(0, 4096))
  t.ok(replica.lines.some(line => /takes over/.test(String(line.msg))))
})

t.test('a write that has only begun when the engine is fenced is not finished', async t => {
  const replica = await runReplica(t, join(shortDir(t), 'r'), SIZE_BYTES)
  await replica.rpc.replicaOpen({session: 'one'})
  const first = await data(t, replica)
  t.match(await ask(first, {type: FRAME.PING}), {type: FRAME.RESPONSE})
  first.socket.write(encodeFrame({type: FRAME.WRITE, payload: Buffer.alloc(4096, 9)}).subarray(0, 3000))
  await replica.rpc.replicaOpen({session: 'two'})
  await first.end()
  const second = await data(t, replica)
  t.same((await ask(second, {type: FRAME.READ, size: 4096})).payload, Buffer.alloc(4096))
})

t.test('an engine that connects after another has taken over', async t => {
  const replica = await runReplica(t, join(shortDir(t), 'r'), SIZE_BYTES)
  for (const session of ['one', 'two']) await replica.rpc.replicaOpen({session, features: ['hello']})
  const greet = async (text: string): Promise<FramePeer> => {
    const peer = await data(t, replica)
    peer.send({type: FRAME.HELLO, payload: Buffer.from(text)})
    return peer
  }
  // The first one has opened the replica, and only now gets to connecting.
  const first = await greet('engine one')
  t.match(await first.next(), {type: FRAME.ERROR, payload: Buffer.from('another engine has taken over this replica, or it is closed')})
  const silent = await data(t, replica)
  for (const peer of [first, silent]) {
    t.match(await ask(peer, {type: FRAME.WRITE, payload: Buffer.alloc(4096, 9)}), {type: FRAME.ERROR})
    t.match(await ask(peer, {type: FRAME.READ, size: 10}), {type: FRAME.ERROR})
  }
  const second = await greet('engine two')
  t.match(await second.next(), {type: FRAME.RESPONSE})
  t.same((await ask(second, {type: FRAME.READ, size: 4096})).payload, Buffer.alloc(4096))
  t.match(await ask(second, {type: FRAME.HELLO, payload: Buffer.from('engine two')}), {type: FRAME.RESPONSE}, 'twice')
  for (const text of [
    '', 'engine', 'engine ', 'layer volume-snap-none.img', `layer ${KEY} ../x`, `layer ${KEY} /etc/passwd`, `layer ${KEY} volume.meta`, `layer ${KEY} volume-head-000.img`, `layer ${KEY.slice(1)} volume-snap-none.img`, `layer ${KEY} volume-snap-none.img`, 'view volume-snap-none.img', 'hello you']) {
    const peer = await greet(text)
    t.match(await peer.next(), {type: FRAME.ERROR}, text)
  }
  const long = await greet('x'.repeat(600))
  await t.rejects(long.next(), 'a greeting that is too long ends the connection')
})

t.test('data of all sizes, through memory and past it, from several connections', async t => {
  const replica = await runReplica(t, join(shortDir(t), 'r'), 16 * SIZE_BYTES)
  await replica.rpc.replicaOpen({session: 'one'})
  const peers = [await data(t, replica), await data(t, replica), await data(t, replica)]
  const size = 16 * SIZE_BYTES
  const part = size / peers.length
  await Promise.all(
    peers.map(async (peer, index) => {
      let at = Math.floor(index * part)
      const end = Math.floor((index + 1) * part)
      const pieces: [offset: number, length: number][] = []
      for (let turn = 1; at < end; turn++) {
        const length = Math.min(end - at, turn % 3 === 0 ? 1_000_000 : turn % 3 === 1 ? 700 + turn : 131_072)
        pieces.push([at, length])
        at += length
      }
      pieces.forEach(([offset, length], sequence) => peer.send({sequence, type: FRAME.WRITE, offset: BigInt(offset), payload: pattern.at(offset, length)}))
      for (const _ of pieces) t.match(await peer.next(), {type: FRAME.RESPONSE})
      t.match(await ask(peer, {type: FRAME.FLUSH}), {type: FRAME.RESPONSE})
      pieces.forEach(([offset, length], sequence) => peer.send({sequence, type: FRAME.READ, offset: BigInt(offset), size: length}))
      for (const _ of pieces) {
        const {offset, payload, size: bytes} = await peer.next()
        if (payload.length !== bytes || pattern.mismatch(payload, Number(offset)) >= 0) t.fail(`wrong data at ${offset}`)
      }
    }),
  )
})

t.test('stopped under load: what was acknowledged is in the file', async t => {
  const replica = await runReplica(t, join(shortDir(t), 'r'), 16 * SIZE_BYTES)
  await replica.rpc.replicaOpen({session: 'one'})
  const peer = await data(t, replica)
  const length = 300_000
  for (let sequence = 0; sequence < 200; sequence++) {
    peer.send({sequence, type: FRAME.WRITE, offset: BigInt(sequence * length), payload: pattern.at(sequence * length, length)})
  }
  await peer.next()
  await Promise.all([replica.server.close(), replica.server.close()])
  await peer.end()
  const acknowledged: number[] = [0]
  while (peer.waiting > 0) {
    const {type, sequence} = await peer.next()
    if (type === FRAME.RESPONSE) acknowledged.push(sequence)
    else t.equal(type, FRAME.ERROR)
  }
  const image = readFileSync(join(replica.directory, 'volume-head-000.img'))
  for (const sequence of acknowledged) {
    if (pattern.mismatch(image.subarray(sequence * length, (sequence + 1) * length), sequence * length) >= 0) t.fail(`write ${sequence} is lost`)
  }
  t.match(readFileSync(join(replica.directory, 'volume.meta'), 'utf8'), /"Dirty":false/)
})

t.test('more connections than anybody needs are refused, and the others go on', async t => {
  const replica = await runReplica(t, join(shortDir(t), 'r'), SIZE_BYTES)
  const peers = await Promise.all(Array.from({length: 70}, () => data(t, replica)))
  await until(() => peers.filter(peer => peer.ended).length === 6, 'the surplus is refused')
  for (const peer of peers.filter(one => !one.ended)) t.match(await ask(peer, {type: FRAME.PING}), {type: FRAME.RESPONSE})
  peers.find(peer => !peer.ended)!.socket.destroy()
  await until(async () => {
    const another = await data(t, replica)
    return ask(another, {type: FRAME.PING}).then(
      () => true,
      () => false,
    )
  }, 'there is room again')
})

t.test('what keeps it from starting', async t => {
  const start = async (options: Partial<ReplicaServerOptions> & {directory: string}): Promise<void> => {
    const server = await startReplicaServer({sizeBytes: SIZE_BYTES, listen: LOOPBACK, log: memoryLog().log, ...options})
    await server.close()
  }

  t.test('a parent that is missing', async t => {
    const folder = shortDir(t)
    await t.rejects(start({directory: join(folder, 'a', 'b')}), {code: 'LH_NOT_FOUND'})
    t.notOk(existsSync(join(folder, 'a')))
  })

  t.test('a folder of something else', async t => {
    const directory = shortDir(t)
    writeFileSync(join(directory, 'letters.txt'), 'dear')
    const before = directoryState(directory)
    await t.rejects(start({directory}), {code: 'LH_CONFLICT'})
    t.same(directoryState(directory), before)
  })

  t.test('a replica of another size', async t => {
    const directory = join(shortDir(t), 'r')
    await start({directory})
    const before = directoryState(directory)
    const started = performance.now()
    await t.rejects(start({directory, sizeBytes: 2 * SIZE_BYTES}), {code: 'LH_CONFLICT', message: /holds a replica of 4194304 bytes/})
    t.ok(performance.now() - started < 30_000)
    t.same(directoryState(directory), before)
  })

  t.test('a directory in use', async t => {
    const replica = await runReplica(t, join(shortDir(t), 'r'), SIZE_BYTES)
    await t.rejects(start({directory: replica.directory}), {code: 'LH_BUSY', message: /is in use by/})
    await t.rejects(start({directory: replica.directory, sizeBytes: undefined}), {code: 'LH_BUSY'})
    t.equal(await state(replica), 'closed')
  })

  for (const [what, spoil] of [
    ['volume.meta cut short', (dir: string) => writeFileSync(join(dir, 'volume.meta'), '{"Size":419')],
    ['a missing head', (dir: string) => rmSync(join(dir, 'volume-head-000.img'))],
    ['a missing meta file', (dir: string) => rmSync(join(dir, 'volume-head-000.img.meta'))],
  ] as const) {
    t.test(what, async t => {
      const directory = join(shortDir(t), 'r')
      await start({directory})
      spoil(directory)
      const before = directoryState(directory)
      for (const sizeBytes of [SIZE_BYTES, undefined]) {
        await t.rejects(start({directory, sizeBytes}), {code: 'LH_CORRUPT', message: new RegExp(directory)})
        t.same(directoryState(directory), before)
      }
    })
  }

  t.test('ports', async t => {
    const folder = shortDir(t)
    const directory = join(folder, 'r')
    await t.rejects(start({directory, listen: {...LOOPBACK, port: 65535}}), {code: 'LH_USAGE'})
    // Three that follow each other, one of them taken.
    const taken = await Listener.open(LOOPBACK, closeFd)
    t.teardown(() => taken.close())
    const {port} = taken.address as TcpAddress
    for (const listen of [port, port - 1, port - 2]) {
      await t.rejects(start({directory, listen: {...LOOPBACK, port: listen}}), {code: 'LH_CONFLICT'}, `--listen ${listen - port}`)
    }
    // Whichever was tried, the directory is free and whole.
    mkdirSync(directory, {recursive: true})
    await start({directory})
  })
})
