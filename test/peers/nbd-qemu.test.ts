import {randomBytes} from 'node:crypto'
import {writeFileSync} from 'node:fs'
import {join} from 'node:path'
import t, {type Test} from 'tap'
import {nbdFrontend} from '../../src/engine/frontends/nbd/nbd-frontend.js'
import {ERRNO, OP} from '../../src/protocol/block-device.js'
import {shortDir} from '../support/short-dir.js'
import {missing, run, runs} from '../engine/frontends/nbd/support/programs.js'
import {recordedLog} from '../engine/frontends/nbd/support/served.js'
import {MemoryDevice} from '../engine/support/memory-device.js'

const MIB = 1024 * 1024
const SIZE = 32 * MIB

async function serve(t: Test): Promise<{device: MemoryDevice; uri: string; folder: string}> {
  const folder = shortDir(t)
  const device = new MemoryDevice(SIZE)
  device.mode = 'later'
  const frontend = await nbdFrontend.open({volume: 'vol-1', device, listen: {kind: 'unix', path: join(folder, 's')}, log: recordedLog().log})
  t.teardown(() => frontend.close(0))
  return {device, uri: frontend.endpoint, folder}
}

const withoutQemu = missing('qemu-img', 'qemu-io')

/** Runs qemu-io with one command after the other; it reports a failed pattern or request in its output. */
async function qemuIo(t: Test, uri: string, ...commands: string[]): Promise<string> {
  const output = await runs(t, 'qemu-io', ['-f', 'raw', '-t', 'none', ...commands.flatMap(command => ['-c', command]), uri])
  t.notMatch(output, /failed|error/i)
  return output
}

t.test('qemu-io: patterns at any offset and length', {skip: withoutQemu}, async t => {
  const {device, uri} = await serve(t)
  await qemuIo(
    t,
    uri,
    'write -P 0x11 0 8M',
    'write -P 0x22 511 1025',
    'write -P 0x33 4095 131074',
    'write -P 0x44 33553920 512',
    'read -P 0x11 0 511',
    'read -P 0x22 511 1025',
    'read -P 0x11 1536 2559',
    'read -P 0x33 4095 131074',
    'read -P 0x11 135169 1M',
    'read -P 0x44 33553920 512',
    'read -P 0 8M 25165312',
  )
  t.equal(device.bytes[511], 0x22)
})

t.test('qemu-io: FUA, flush, discard, zeroes', {skip: withoutQemu}, async t => {
  const {device, uri} = await serve(t)
  await qemuIo(t, uri, 'write -P 0x55 0 1M', 'flush')
  t.equal(device.dirty.size, 0)
  device.records = []
  await qemuIo(t, uri, 'write -f -P 0x66 4096 4096')
  t.ok(device.records.some(record => record.op === OP.WRITE && record.fua && record.offset === 4096))
  device.records = []
  await qemuIo(t, uri, 'discard 8192 8192', 'write -z 64k 64k', 'write -z -u 128k 64k', 'read -P 0 64k 128k', 'read -P 0x55 256k 64k')
  const zeroes = device.records.filter(record => record.op === OP.WRITE_ZEROES)
  t.same(
    zeroes.map(record => [record.offset, record.noUnmap]),
    [
      [65536, true],
      [131072, false],
    ],
    'with and without holes',
  )
  t.ok(device.records.some(record => record.op === OP.DISCARD && record.offset === 8192))
})

t.test('qemu-io: many requests at once', {skip: withoutQemu}, async t => {
  const {uri} = await serve(t)
  const writes = Array.from({length: 64}, (_, index) => `aio_write -P ${index + 1} ${index * 100_000} 100000`)
  const reads = Array.from({length: 64}, (_, index) => `aio_read -P ${index + 1} ${index * 100_000} 100000`)
  await qemuIo(t, uri, ...writes, 'aio_flush', ...reads, 'aio_flush')
})

t.test('qemu-io: errors of the volume are errors there', {skip: withoutQemu}, async t => {
  const {device, uri} = await serve(t)
  const attempt = (command: string): Promise<{stdout: string; stderr: string}> => run('qemu-io', ['-f', 'raw', '-t', 'none', '-c', command, uri])
  device.full = true
  t.match(await attempt('write 1M 64k'), {stdout: /No space left on device/})
  device.full = false
  device.fault = io => (io.op === OP.READ && io.offset >= MIB ? ERRNO.EIO : ERRNO.OK)
  t.match(await attempt('read 1M 1M'), {stdout: /Input\/output error/})
  device.fault = io => (io.op === OP.FLUSH ? ERRNO.EIO : ERRNO.OK)
  t.match(await run('qemu-io', ['-f', 'raw', '-t', 'none', '-c', 'write 0 4096', '-c', 'flush', uri]), {code: 1}, 'also a flush that failed')
})

t.test('qemu-img: info, compare, map, convert', {skip: withoutQemu}, async t => {
  const {device, uri, folder} = await serve(t)
  const image = join(folder, 'image')
  const data = Buffer.concat([randomBytes(3 * MIB), Buffer.alloc(10 * MIB), randomBytes(MIB), Buffer.alloc(18 * MIB)])
  writeFileSync(image, data)
  t.match(JSON.parse(await runs(t, 'qemu-img', ['info', '--output=json', uri])), {'virtual-size': SIZE, format: 'raw'})
  await runs(t, 'qemu-img', ['convert', '-n', '-f', 'raw', '-O', 'raw', '-W', '-m', '8', image, uri])
  t.ok(device.bytes.equals(data))
  t.match(await runs(t, 'qemu-img', ['compare', '-f', 'raw', '-F', 'raw', image, uri]), /identical/)
  const map = JSON.parse(await runs(t, 'qemu-img', ['map', '-f', 'raw', '--output=json', uri])) as unknown
  t.match(map, [
    {start: 0, length: 3 * MIB, zero: false, data: true},
    {start: 3 * MIB, length: 10 * MIB, zero: true, data: false},
    {start: 13 * MIB, length: MIB, zero: false, data: true},
    {start: 14 * MIB, length: 18 * MIB, zero: true, data: false},
  ])
  const back = join(folder, 'back.qcow2')
  await runs(t, 'qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', uri, back])
  t.match(await runs(t, 'qemu-img', ['compare', '-f', 'raw', '-F', 'qcow2', image, back]), /identical/)
  device.bytes[13 * MIB] = (device.bytes[13 * MIB] ?? 0) ^ 1
  t.match(await run('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', image, uri]), {code: 1, stdout: /mismatch at offset 13631488/})
})

t.test('qemu-img bench: deep queues', {skip: withoutQemu}, async t => {
  const {device, uri} = await serve(t)
  await runs(t, 'qemu-img', ['bench', '-f', 'raw', '-t', 'none', '-c', '5000', '-d', '200', '-s', '4096', '-S', '5000', uri])
  await runs(t, 'qemu-img', ['bench', '-f', 'raw', '-t', 'none', '-w', '--flush-interval=64', '--no-drain', '-c', '2000', '-d', '64', '-s', '70000', '-S', '4097', '--pattern=119', uri])
  t.ok(device.bytes.subarray(0, 2000 * 4097).every(byte => byte === 119))
})
