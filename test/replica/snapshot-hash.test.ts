import {readFileSync, statSync, writeFileSync, openSync, writeSync, closeSync, rmSync} from 'node:fs'
import {join} from 'node:path'
import t, {type Test} from 'tap'
import {connect} from '../../src/protocol/grpc/client.js'
import {SyncAgentServiceDefinition, type SnapshotHashStatusResponse} from '../../src/protocol/proto/generated/sync-agent.js'
import {changeTime, layerChangeTime} from '../../src/replica/hash/checksum-file.js'
import {Crc64} from '../../src/replica/hash/crc64.js'
import {HashLock} from '../../src/replica/hash/hash-lock.js'
import {runReplica} from '../engine/support/running.js'
import {until} from '../support/until.js'
import {upstreamReplica} from './support/fixture.js'
import {Random} from './support/random.js'

t.before(() => {
  process.env.LONGHORN_CONTROL_PATH = join(t.testdir({}), 'control')
})

/** Bit by bit, as the definition has it. */
function slowCrc(bytes: Buffer): string {
  const all = 0xffff_ffff_ffff_ffffn
  let crc = all
  for (const byte of bytes) {
    crc ^= BigInt(byte)
    for (let bit = 0; bit < 8; bit++) crc = (crc & 1n) === 1n ? (crc >> 1n) ^ 0xd800_0000_0000_0000n : crc >> 1n
  }
  return (crc ^ all).toString(16).padStart(16, '0')
}

function crcOf(...parts: (Buffer | number)[]): string {
  const crc = new Crc64()
  for (const part of parts) {
    if (typeof part === 'number') crc.updateZeros(part)
    else crc.update(part)
  }
  return crc.digest()
}

t.test('CRC-64/ISO', async t => {
  // The check value of CRC-64/GO-ISO in the catalogue of CRC algorithms.
  t.equal(crcOf(Buffer.from('123456789')), 'b90956c775a41001')
  const random = new Random(5)
  for (const length of [0, 1, 7, 8, 9, 63, 1000]) {
    const bytes = Buffer.alloc(length)
    random.fill(bytes)
    t.equal(crcOf(bytes), slowCrc(bytes), `${length} bytes`)
    t.equal(crcOf(bytes.subarray(0, 3), bytes.subarray(3)), slowCrc(bytes))
  }
  for (const zeros of [0, 1, 2, 7, 4096, 100_001]) {
    t.equal(crcOf(Buffer.from('a'), zeros, Buffer.from('b')), crcOf(Buffer.from('a'), Buffer.alloc(zeros), Buffer.from('b')), `${zeros} zeros`)
  }
  t.equal(crcOf(2 ** 42), crcOf(2 ** 41, 2 ** 41), '4 TiB take no time')
})

t.test('the time of the last change, as upstream writes it', async t => {
  t.equal(changeTime(1_795_167_574_651_185_704n), '2026-11-20 09:39:34.651185704 +0000 UTC')
  t.equal(changeTime(1_795_167_574_651_000_000n), '2026-11-20 09:39:34.651 +0000 UTC')
  t.equal(changeTime(1_795_167_574_000_000_000n), '2026-11-20 09:39:34 +0000 UTC')
})

async function agent(t: Test) {
  const directory = upstreamReplica(t)
  const replica = await runReplica(t, directory, undefined)
  const {port} = replica.server.address
  const rpc = connect(SyncAgentServiceDefinition, {peer: 'sync agent', address: {...replica.server.address, port: port + 2}})
  t.teardown(() => rpc.destroy())
  const hash = async (snapshotName: string, rehash = false): Promise<SnapshotHashStatusResponse> => {
    await rpc.snapshotHash({snapshotName, rehash})
    let status = await rpc.snapshotHashStatus({snapshotName})
    await until(async () => (status = await rpc.snapshotHashStatus({snapshotName})).state !== 'in_progress', 'it is hashed', 60_000)
    // The lock is given back just after.
    await until(async () => !(await rpc.snapshotHashLockState({})).isLocked, 'nobody is hashing')
    return status
  }
  return {directory, rpc, hash}
}

t.test('a snapshot is hashed, and the checksum kept as upstream keeps it', async t => {
  const {directory, rpc, hash} = await agent(t)
  const path = join(directory, 'volume-snap-three.img')
  const wanted = crcOf(readFileSync(path))
  t.match(await rpc.snapshotHashStatus({snapshotName: 'three'}), {state: '', checksum: ''})
  t.match(await hash('three'), {state: 'complete', checksum: wanted, error: '', silentlyCorrupted: false})
  const text = readFileSync(`${path}.checksum`, 'utf8')
  const time = changeTime(statSync(path, {bigint: true}).ctimeNs)
  t.match(text, new RegExp(`^\\{"method":"crc64","checksum":"${wanted}","change_time":"${time.replaceAll('.', '\\.').replace('+', '\\+')}","last_hashed_at":"\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\dZ","silently_corrupted":false\\}\\n$`))
  t.match(await hash('three'), {state: 'complete', checksum: wanted})
  t.equal(readFileSync(`${path}.checksum`, 'utf8'), text, 'what is valid is not hashed again')

  writeFileSync(`${path}.checksum`, text.replace(wanted, '0123456789abcdef'))
  t.match(await hash('three', true), {state: 'complete', checksum: '0123456789abcdef', silentlyCorrupted: true}, 'another checksum and the same ctime')
  t.match(JSON.parse(readFileSync(`${path}.checksum`, 'utf8')), {checksum: '0123456789abcdef', silently_corrupted: true})

  const fd = openSync(path, 'r+')
  writeSync(fd, 'x', 0)
  closeSync(fd)
  t.match(await hash('three'), {state: 'complete', checksum: crcOf(readFileSync(path)), silentlyCorrupted: false}, 'the file was changed, so the record said nothing')
  for (const garbage of ['', 'no json', '{"method":"sha512","checksum":"x"}', '{"method":"crc64","checksum":"../../etc"}', '[]']) {
    writeFileSync(`${path}.checksum`, garbage)
    t.match(await hash('three'), {state: 'complete', checksum: crcOf(readFileSync(path))}, garbage)
  }
})

t.test('what is refused', async t => {
  const {directory, rpc} = await agent(t)
  await t.rejects(rpc.snapshotHash({snapshotName: ''}), {code: 'LH_USAGE'})
  await t.rejects(rpc.snapshotHash({snapshotName: '../three'}), {code: 'LH_USAGE'})
  await t.rejects(rpc.snapshotHash({snapshotName: 'nope'}), {code: 'LH_NOT_FOUND'})
  await t.rejects(rpc.snapshotHashStatus({snapshotName: 'nope'}), {code: 'LH_NOT_FOUND'})
  await t.rejects(rpc.snapshotHashCancel({snapshotName: 'one'}), {message: /not found/})
  const lock = new HashLock()
  t.ok(lock.take())
  t.match(await rpc.snapshotHashLockState({}), {isLocked: true})
  await t.rejects(rpc.snapshotHash({snapshotName: 'one'}), {code: 'LH_BUSY', message: /cannot request hashing snapshot/})
  lock.give()
  await rpc.snapshotHash({snapshotName: 'one'})
  await rpc.snapshotHashCancel({snapshotName: 'one'})
  await until(async () => (await rpc.snapshotHashStatus({snapshotName: 'one'})).state !== 'in_progress', 'it has ended')
  rmSync(join(directory, 'volume-snap-two.img.checksum'), {force: true})
  t.ok((await layerChangeTime(directory, 'volume-snap-two.img')).endsWith(' +0000 UTC'))
})
