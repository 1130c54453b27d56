import {existsSync, mkdirSync, readFileSync, readdirSync, statSync, statfsSync, writeFileSync} from 'node:fs'
import {dirname, join} from 'node:path'
import t from 'tap'
import {createReplica} from '../../src/replica/create-replica.js'
import {openReplica} from '../../src/replica/open-replica.js'
import {FaultyDisk, stops} from './support/faulty-disk.js'
import {freshPath} from './support/places.js'

const SIZE = 1024 ** 2

t.test('a new replica has exactly the files that upstream would make', async t => {
  const directory = freshPath(t)
  await createReplica(directory, SIZE)
  t.strictSame(readdirSync(directory), ['volume-head-000.img', 'volume-head-000.img.meta', 'volume.meta'])
  t.equal(statSync(directory).mode & 0o777, 0o700)
  t.match(statSync(join(directory, 'volume-head-000.img')), {size: SIZE, blocks: 0})
  t.equal(
    readFileSync(join(directory, 'volume.meta'), 'utf8'),
    `{"Size":${SIZE},"Head":"volume-head-000.img","Dirty":false,"Rebuilding":false,"Error":"",` +
      '"Parent":"","SectorSize":512,"BackingFilePath":"","Encrypted":false}\n',
  )
  t.match(
    readFileSync(join(directory, 'volume-head-000.img.meta'), 'utf8'),
    /^\{"Name":"volume-head-000.img","Parent":"","Removed":false,"UserCreated":false,"Created":"[-\d]+T[:\d]+Z","Labels":null\}\n$/,
  )
})

t.test('with a revision counter', async t => {
  const directory = freshPath(t)
  await createReplica(directory, SIZE, {revisionCounter: true})
  const counter = readFileSync(join(directory, 'revision.counter'))
  t.equal(counter.length, 4096)
  t.equal(counter[0], '0'.charCodeAt(0))
  await using volume = await openReplica(directory)
  t.equal(volume.revision, 0)
})

t.test('creating again is content with the same size and refuses another', async t => {
  const directory = freshPath(t)
  await createReplica(directory, SIZE)
  {
    await using volume = await openReplica(directory)
    await volume.write(Buffer.from('kept'), 0, 4, 0)
    await t.rejects(createReplica(directory, SIZE), {code: 'LH_BUSY'}, 'not while it is open')
  }
  await createReplica(directory, SIZE)
  await t.rejects(createReplica(directory, 2 * SIZE), {code: 'LH_CONFLICT', message: new RegExp(`of ${SIZE} bytes, not of ${2 * SIZE}`)})
  await using volume = await openReplica(directory)
  const read = Buffer.alloc(4)
  volume.readSync(read, 0, 4, 0)
  t.equal(read.toString(), 'kept')
})

t.test('sizes that are not possible', async t => {
  for (const size of [0, -512, 511, 1000, 2 ** 53, NaN, 0.5]) {
    const directory = freshPath(t)
    await t.rejects(createReplica(directory, size), {code: 'LH_USAGE'}, `${size}`)
    t.notOk(existsSync(directory))
  }
})

t.test('a size that the file system cannot hold', async t => {
  const directory = freshPath(t)
  const ext4 = statfsSync(dirname(directory)).type === 0xef53
  if (!ext4) {
    t.pass('not here', {skip: 'this is not ext4, whose files end at 16 TiB'})
    return
  }
  await t.rejects(createReplica(directory, 2 ** 52), {code: 'LH_IO', message: /file too large/i})
})

t.test('the parent must exist: an unmounted disk must not be filled in its place', async t => {
  const directory = join(freshPath(t), 'r2')
  await t.rejects(createReplica(directory, SIZE), {code: 'LH_NOT_FOUND', message: /mount/})
  t.notOk(existsSync(dirname(directory)))
})

t.test('a directory with other things in it is left alone', async t => {
  const directory = freshPath(t)
  mkdirSync(directory)
  for (const file of ['notes.txt', 'volume-head-000.img']) writeFileSync(join(directory, file), 'x')
  await t.rejects(createReplica(directory, SIZE), {code: 'LH_CONFLICT'})
  t.strictSame(readdirSync(directory), ['notes.txt', 'volume-head-000.img'])
  await t.rejects(openReplica(directory), {code: 'LH_NOT_FOUND'})
})

t.test('a head with data and no volume.meta is not overwritten', async t => {
  const directory = freshPath(t)
  mkdirSync(directory)
  const head = join(directory, 'volume-head-000.img')
  writeFileSync(head, Buffer.alloc(SIZE, 1))
  await t.rejects(createReplica(directory, SIZE), {code: 'LH_CONFLICT'})
  t.equal(readFileSync(head)[SIZE - 1], 1)
})

t.test('stopped at every step, with every combination of lost names: a whole replica or a fresh start', async t => {
  const options = {revisionCounter: true}
  const whole = new FaultyDisk(Infinity)
  await createReplica(freshPath(t), SIZE, {...options, disk: whole})
  t.ok(whole.steps > 8)
  let cases = 0
  for (let step = 0; step < whole.steps; step++) {
    for (let mask = 0, count = 1; mask < count; mask++) {
      const directory = freshPath(t)
      const disk = new FaultyDisk(step)
      t.ok(await stops(createReplica(directory, SIZE, {...options, disk})))
      count = 1 << disk.unsynced
      disk.losePower(mask)
      await createReplica(directory, SIZE, options)
      const files = ['revision.counter', 'volume-head-000.img', 'volume-head-000.img.meta', 'volume.meta']
      t.strictSame(readdirSync(directory), files, `step ${step}, lost ${mask.toString(2)}`)
      await using volume = await openReplica(directory)
      t.equal(volume.sizeBytes, SIZE)
      cases += 1
    }
  }
  t.comment(`${cases} crashes`)
})
