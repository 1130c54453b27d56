import {readFileSync, renameSync, rmSync, truncateSync, writeFileSync, linkSync, existsSync} from 'node:fs'
import {join} from 'node:path'
import t from 'tap'
import {readReplicaDirectory} from '../../src/replica/layer-chain.js'
import {openReplica} from '../../src/replica/open-replica.js'
import {upstreamReplica} from './support/fixture.js'

t.test('the chain of the upstream replica', async t => {
  const found = await readReplicaDirectory(upstreamReplica(t))
  t.strictSame(
    found.chain.map(layer => layer.file),
    ['volume-snap-one.img', 'volume-snap-two.img', 'volume-snap-three.img', 'volume-snap-four.img', 'volume-head-004.img'],
  )
  t.strictSame(found.chain.map(layer => layer.meta.removed), [false, true, false, false, false])
  t.strictSame(found.chain[0]?.meta.labels, {tier: 'gold'})
  t.strictSame(found.others, [])
  t.equal(found.recovered, false)
})

t.test('no replica', async t => {
  await t.rejects(readReplicaDirectory(t.testdir({})), {code: 'LH_NOT_FOUND', message: /it is empty/})
  await t.rejects(readReplicaDirectory('/no/such/directory'), {code: 'LH_NOT_FOUND'})
})

t.test('a missing layer is an error, never an empty layer', async t => {
  const directory = upstreamReplica(t)
  const path = join(directory, 'volume-snap-two.img')
  renameSync(path, `${path}.away`)
  await t.rejects(openReplica(directory), {code: 'LH_CORRUPT', message: /volume-snap-two\.img is missing/, details: {path}})
  t.notOk(existsSync(path))
  t.match(readFileSync(join(directory, 'volume.meta'), 'utf8'), '"Dirty":false', 'nothing was changed')
})

t.test('what else can be wrong with a chain', async t => {
  const wrong: Record<string, [code: string, message: RegExp, breakIt: (path: (file: string) => string) => void]> = {
    'missing .meta': ['LH_CORRUPT', /three\.img\.meta is missing/, path => rmSync(path('volume-snap-three.img.meta'))],
    'broken .meta': ['LH_CORRUPT', /three\.img\.meta is not complete JSON/, path => truncateSync(path('volume-snap-three.img.meta'), 30)],
    'missing head': ['LH_CORRUPT', /volume-head-004\.img is missing/, path => rmSync(path('volume-head-004.img'))],
    loop: ['LH_CORRUPT', /loop/, path => writeFileSync(path('volume-snap-one.img.meta'), '{"Parent":"volume-snap-three.img"}')],
    'its own parent': ['LH_CORRUPT', /loop/, path => writeFileSync(path('volume-snap-one.img.meta'), '{"Parent":"volume-snap-one.img"}')],
    'larger than the volume': ['LH_CORRUPT', /larger than the volume/, path => truncateSync(path('volume-snap-one.img'), 17 * 1024 ** 2)],
    'head and snapshot are one file': [
      'LH_CORRUPT',
      /are one file/,
      path => {
        rmSync(path('volume-snap-one.img'))
        linkSync(path('volume-head-004.img'), path('volume-snap-one.img'))
      },
    ],
    'broken volume.meta': ['LH_CORRUPT', /volume\.meta is not complete JSON/, path => truncateSync(path('volume.meta'), 50)],
    'backing file': [
      'LH_UNSUPPORTED',
      /backing file/,
      path => {
        const text = readFileSync(path('volume.meta'), 'utf8')
        writeFileSync(path('volume.meta'), text.replace('"BackingFilePath":""', '"BackingFilePath":"/x"'))
      },
    ],
  }
  for (const [name, [code, message, breakIt]] of Object.entries(wrong)) {
    const directory = upstreamReplica(t)
    breakIt(file => join(directory, file))
    await t.rejects(openReplica(directory), {code, message}, name)
  }
})

t.test('a lost volume.meta is put together where there is no doubt', async t => {
  for (const lose of [(path: string) => truncateSync(path, 0), (path: string) => rmSync(path)]) {
    const directory = upstreamReplica(t)
    const path = join(directory, 'volume.meta')
    const before = readFileSync(path, 'utf8')
    lose(path)
    await using volume = await openReplica(directory)
    t.equal(volume.directory.recovered, true)
    t.equal(readFileSync(path, 'utf8').replace(/ \n$/, '\n'), before.replace('"Dirty":false', '"Dirty":true'))
  }
  const directory = upstreamReplica(t)
  rmSync(join(directory, 'volume.meta'))
  writeFileSync(join(directory, 'volume-head-000.img'), '')
  writeFileSync(join(directory, 'volume-head-000.img.meta'), '{}')
  await t.rejects(openReplica(directory), {code: 'LH_CORRUPT', message: /several heads/})
})

t.test('other branches are known, and a broken one does not matter', async t => {
  const directory = upstreamReplica(t)
  const head = join(directory, 'volume-head-004.img.meta')
  writeFileSync(head, readFileSync(head, 'utf8').replace('volume-snap-four', 'volume-snap-two'))
  writeFileSync(join(directory, 'volume-snap-lost.img'), '')
  const found = await readReplicaDirectory(directory)
  t.equal(found.chain.length, 3)
  t.strictSame(found.others.map(layer => layer.file), ['volume-snap-four.img', 'volume-snap-three.img'])
  t.match(found.damaged, [/volume-snap-lost\.img\.meta is missing/])
  const volume = await openReplica(directory)
  t.equal(volume.meta.parent, 'volume-snap-two.img', 'volume.meta follows the chain')
  await volume.close()
})
