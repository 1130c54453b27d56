import {randomBytes} from 'node:crypto'
import t from 'tap'
import {compressFrame, decompressFrame} from 'lz4-napi'
import {lz4} from '../../../src/lib/sys/liblz4.js'

const MIB = 1024 ** 2
const library = lz4!

t.test('the C library and the addon read each other', {skip: lz4 === undefined && 'this machine has no liblz4'}, async t => {
  const mixed = Buffer.concat([randomBytes(MIB), Buffer.alloc(MIB, 'abcdefgh ')])
  for (const data of [mixed, Buffer.alloc(2 * MIB), randomBytes(16 * MIB), Buffer.alloc(0), Buffer.from('x')]) {
    const frame = await library.compress(data)
    t.ok((await decompressFrame(frame)).equals(data), `${data.length} bytes read by the addon`)
    t.ok((await library.decompress(await compressFrame(data, {contentChecksum: true}), Math.max(1, data.length))).equals(data), `${data.length} bytes written by it`)
    t.ok((await library.decompress(frame, Math.max(1, data.length))).equals(data))
  }
  t.equal((await library.compress(mixed)).subarray(0, 7).toString('hex'), '04224d186470b9', "upstream's header")
})

t.test('a frame that is not right is an error', {skip: lz4 === undefined && 'this machine has no liblz4'}, async t => {
  const data = Buffer.concat([randomBytes(200_000), Buffer.alloc(200_000, 'text ')])
  const frame = await library.compress(data)
  for (const length of [0, 1, 6, 7, 10, frame.length / 2, frame.length - 5, frame.length - 1]) await t.rejects(library.decompress(frame.subarray(0, length), data.length), /breaks off|ERROR/, `${length} bytes of it`)
  await t.rejects(library.decompress(frame, data.length - 1), /more than|ERROR/)
  for (let round = 0; round < 200; round++) {
    const damaged = Buffer.from(frame)
    const at = Math.floor(Math.random() * (frame.length - 15)) + 7
    damaged[at]! ^= 1 << (round % 8)
    await t.rejects(library.decompress(damaged, data.length), Error, `byte ${at}`)
  }
})

t.test('many at once', {skip: lz4 === undefined && 'this machine has no liblz4'}, async t => {
  const all = Array.from({length: 40}, (_, index) => Buffer.concat([randomBytes(1000 * index), Buffer.alloc(100_000, `${index} `)]))
  const frames = await Promise.all(all.map(data => library.compress(data)))
  const read = await Promise.all(frames.map((frame, index) => library.decompress(frame, all[index]!.length)))
  t.ok(read.every((data, index) => data.equals(all[index]!)))
})
