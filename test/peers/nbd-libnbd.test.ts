import {randomBytes} from 'node:crypto'
import {readFileSync, statSync, truncateSync, writeFileSync} from 'node:fs'
import {join} from 'node:path'
import t, {type Test} from 'tap'
import {nbdFrontend} from '../../src/engine/frontends/nbd/nbd-frontend.js'
import type {Address} from '../../src/lib/address.js'
import {shortDir} from '../support/short-dir.js'
import {missing, pythonWithLibnbd, run, runs} from '../engine/frontends/nbd/support/programs.js'
import {recordedLog} from '../engine/frontends/nbd/support/served.js'
import {MemoryDevice} from '../engine/support/memory-device.js'

const MIB = 1024 * 1024

async function serve(t: Test, sizeBytes: number, tcp = false): Promise<{device: MemoryDevice; uri: string; folder: string}> {
  const folder = shortDir(t)
  const device = new MemoryDevice(sizeBytes)
  const listen: Address = tcp ? {kind: 'tcp', host: '127.0.0.1', port: 0} : {kind: 'unix', path: join(folder, 's')}
  const frontend = await nbdFrontend.open({volume: 'vol-1', device, listen, log: recordedLog().log})
  t.teardown(() => frontend.close(0))
  return {device, uri: frontend.endpoint, folder}
}

t.test('nbdinfo', {skip: missing('nbdinfo')}, async t => {
  const {device, uri} = await serve(t, 4 * MIB)
  device.mode = 'later'
  interface Info {
    protocol: string
    structured: boolean
    exports: Record<string, unknown>[]
  }
  for (const args of [[], ['--list']]) {
    const {exports, ...info} = JSON.parse(await runs(t, 'nbdinfo', ['--json', ...args, uri])) as Info
    t.match(info, {protocol: 'newstyle-fixed', structured: true})
    t.match(exports, [
      {
        'export-name': 'vol-1',
        description: args.length === 0 ? 'Longhorn volume vol-1' : undefined,
        'export-size': 4 * MIB,
        contexts: ['base:allocation'],
        is_read_only: false,
        is_rotational: false,
        can_df: true,
        can_fast_zero: false,
        can_flush: true,
        can_fua: true,
        can_multi_conn: true,
        can_trim: true,
        can_zero: true,
        block_size_minimum: 1,
        block_size_preferred: 4096,
        block_size_maximum: 32 * MIB,
      },
    ])
  }
  t.equal((await runs(t, 'nbdinfo', ['--size', uri])).trim(), String(4 * MIB))
  for (const what of ['connect', 'read', 'write', 'flush', 'fua', 'multi-conn', 'trim', 'zero', 'df', 'structured']) await runs(t, 'nbdinfo', ['--can', what, uri])
  t.equal((await run('nbdinfo', ['--is', 'read-only', uri])).code, 2, 'nbdinfo says no with 2')
  t.match(await run('nbdinfo', ['--size', uri.replace('vol-1', 'vol-2')]), {code: 1, stderr: /vol-2/})
})

t.test('nbdinfo --map', {skip: missing('nbdinfo')}, async t => {
  const {device, uri, folder} = await serve(t, 64 * MIB)
  const map = async (): Promise<unknown> => JSON.parse(await runs(t, 'nbdinfo', ['--map', '--json', uri]))
  t.match(await map(), [{offset: 0, length: 64 * MIB, type: 3}])
  const source = join(folder, 'source')
  writeFileSync(source, Buffer.concat([Buffer.alloc(MIB), Buffer.alloc(8192, 1)]))
  await runs(t, 'nbdcopy', ['--sparse=4096', source, uri])
  const hole = {type: 3, description: 'hole,zero'}
  t.match(await map(), [
    {offset: 0, length: MIB, ...hole},
    {offset: MIB, length: 8192, type: 0, description: 'data'},
    {offset: MIB + 8192, length: 63 * MIB - 8192, ...hole},
  ])
  // Every other block: more extents than one answer holds.
  const many = Array.from({length: 10_000}, (_, index) => ({offset: index * 4096, length: 4096, allocated: index % 2 === 0}))
  device.blockStatus = offset => Promise.resolve(many.slice(offset / 4096).concat({offset: 10_000 * 4096, length: 64 * MIB - 10_000 * 4096, allocated: false}))
  t.equal(((await map()) as unknown[]).length, 10_000, 'asked for in several steps')
})

for (const tcp of [false, true]) {
  t.test(`nbdcopy over ${tcp ? 'TCP' : 'a unix socket'}`, {skip: missing('nbdcopy')}, async t => {
    const size = 48 * MIB + 512
    const {device, uri, folder} = await serve(t, size, tcp)
    const source = join(folder, 'source')
    const target = join(folder, 'target')
    // Data, a hole, data, and an end on no block.
    const data = Buffer.concat([randomBytes(16 * MIB), Buffer.alloc(16 * MIB), randomBytes(16 * MIB + 512)])
    writeFileSync(source, data)
    const settings = [
      ['--connections=1', '--requests=1'],
      ['--connections=4', '--requests=64'],
      ['--synchronous'],
      ['--connections=2', '--request-size=33554432', '--requests=4'],
      ['--connections=2', '--request-size=4096'],
    ]
    for (const args of settings) {
      device.bytes.fill(0xff)
      device.dirty.clear()
      await runs(t, 'nbdcopy', ['--flush', ...args, source, uri])
      t.ok(device.bytes.equals(data), 'all of it has arrived')
      t.equal(device.dirty.size, 0, 'and is flushed')
      writeFileSync(target, '')
      truncateSync(target, size)
      await runs(t, 'nbdcopy', [...args, uri, target])
      t.ok(readFileSync(target).equals(data), 'and comes back')
      if (args[1]?.startsWith('--requests')) t.ok(statSync(target).blocks * 512 < 40 * MIB, 'without the hole')
    }
  })
}

const python = pythonWithLibnbd()
const withoutLibnbd = python === undefined && 'not installed: python3-libnbd'

/** Runs a Python script that has a handle `h` of libnbd and the endpoint as `uri`. */
function script(t: Test, uri: string, code: string): Promise<string> {
  return runs(t, python ?? '', ['-'], `import nbd\nh = nbd.NBD()\nuri = ${JSON.stringify(uri)}\n${code}`)
}

t.test('libnbd: clients of every age', {skip: withoutLibnbd}, async t => {
  const {device, uri} = await serve(t, 4 * MIB)
  device.mode = 'later'
  const session = `
h.set_export_name("vol-1")
h.connect_uri(uri)
assert h.get_size() == 4194304
data = bytes(range(256)) * 1024
h.pwrite(data, 777)
assert h.pread(len(data), 777) == data
h.pwrite(data, 0, nbd.CMD_FLAG_FUA)
h.flush()
h.zero(4096, 4096)
h.zero(4096, 12288, nbd.CMD_FLAG_NO_HOLE)
h.trim(4096, 1048576)
assert h.pread(4096, 4096) == bytes(4096)
for bad in [lambda: h.pread(2, 4194303), lambda: h.pwrite(b"ab", 4194303), lambda: h.cache(512, 0), lambda: h.zero(512, 0, nbd.CMD_FLAG_FAST_ZERO)]:
    try:
        bad()
        assert False
    except nbd.Error as error:
        assert error.errno in ("EINVAL", "ENOSPC", "ENOTSUP"), error
# Many at once, in any order.
buffers = [nbd.Buffer(65536) for _ in range(64)]
cookies = [h.aio_pread(buffer, index * 512) for index, buffer in enumerate(buffers)]
whole = bytes(h.pread(64 * 512 + 65536, 0))
while h.aio_in_flight() > 0:
    h.poll(-1)
for index, buffer in enumerate(buffers):
    assert buffer.to_bytearray() == whole[index * 512 : index * 512 + 65536]
h.shutdown()
print(h.get_protocol(), h.get_structured_replies_negotiated())
`
  const clients: [string, string, string][] = [
    ['of today', '', 'newstyle-fixed True'],
    ['without structured replies', 'h.set_request_structured_replies(False)', 'newstyle-fixed False'],
    ['with EXPORT_NAME and its zeroes', 'h.set_handshake_flags(nbd.HANDSHAKE_FLAG_FIXED_NEWSTYLE); h.set_request_structured_replies(False)', 'newstyle-fixed False'],
    ['from before fixed newstyle', 'h.set_handshake_flags(0)', 'newstyle False'],
    ['from before fixed newstyle, without the zeroes', 'h.set_handshake_flags(nbd.HANDSHAKE_FLAG_NO_ZEROES)', 'newstyle False'],
    ['that checks what it asks for', 'h.set_strict_mode(0)', 'newstyle-fixed True'],
  ]
  for (const [who, setting, expected] of clients) {
    t.equal((await script(t, uri, `${setting}\n${session}`)).trim(), expected, `a client ${who}`)
  }
})

t.test('libnbd: structured reads with and without DF, block status, option mode', {skip: withoutLibnbd}, async t => {
  const {device, uri} = await serve(t, 4 * MIB)
  device.mode = 'later'
  await script(
    t,
    uri,
    `
h.set_opt_mode(True)
h.connect_uri(uri)
names = []
h.opt_list(lambda name, description: names.append((name, description)))
assert names == [("vol-1", "")], names
h.set_full_info(True)
h.opt_info()
assert h.get_size() == 4194304
assert h.get_canonical_export_name() == "vol-1"
assert h.get_export_description() == "Longhorn volume vol-1"
contexts = []
h.opt_list_meta_context(lambda name: contexts.append(name))
assert contexts == ["base:allocation"], contexts
h.set_export_name("wrong")
try:
    h.opt_go()
    assert False
except nbd.Error as error:
    assert error.errno == "ENOENT", error
h.set_export_name("vol-1")
h.add_meta_context("base:allocation")
h.add_meta_context("x-unknown:thing")
h.opt_go()
h.pwrite(b"x" * 1000000, 100)
chunks = []
data = h.pread_structured(1500000, 50, lambda part, offset, status, error: chunks.append((offset, len(part), status)))
assert data == bytes(50) + b"x" * 1000000 + bytes(499950)
assert len(chunks) > 5 and sum(length for _, length, _ in chunks) == 1500000, chunks
chunks.clear()
assert h.pread_structured(1500000, 50, lambda part, offset, status, error: chunks.append((offset, len(part), status)), nbd.CMD_FLAG_DF) == data
assert chunks == [(50, 1500000, nbd.READ_DATA)], chunks
extents = []
h.block_status(4194304, 0, lambda context, offset, entries, error: extents.append((context, offset, entries)))
assert extents == [("base:allocation", 0, [1003520, 0, 3190784, 3])], extents
extents.clear()
h.block_status(4193792, 512, lambda context, offset, entries, error: extents.append(entries), nbd.CMD_FLAG_REQ_ONE)
assert extents == [[1003008, 0]], extents
h.shutdown()
`,
  )
})

t.test('nbd-client lists what there is', {skip: missing('nbd-client')}, async t => {
  const {uri} = await serve(t, MIB, true)
  const {hostname, port} = new URL(uri)
  t.match(await runs(t, 'nbd-client', ['-l', hostname, port]), /^vol-1$/m)
})
