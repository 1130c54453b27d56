import {linkSync, readdirSync, readFileSync, statSync} from 'node:fs'
import {join} from 'node:path'
import t, {type Test} from 'tap'
import {DirectoryLock} from '../../../src/replica/directory-lock.js'
import {readLayer, readReplicaDirectory} from '../../../src/replica/layer-chain.js'
import type {LayerMeta} from '../../../src/replica/layer-meta.js'
import {joinDirectory} from '../../../src/replica/rebuild/join.js'
import {upstreamReplica} from '../support/fixture.js'

const CREATED = '2026-01-02T03:04:05Z'

/** The directory of a replica whose power was cut in the middle of snapshot "s": head and snapshot are one file. */
async function interrupted(t: Test): Promise<{directory: string; snapshot: LayerMeta}> {
  const directory = upstreamReplica(t)
  linkSync(join(directory, 'volume-head-004.img'), join(directory, 'volume-snap-s.img'))
  linkSync(join(directory, 'volume-head-004.img.meta'), join(directory, 'volume-snap-s.img.meta'))
  return {directory, snapshot: (await readLayer(directory, 'volume-snap-s.img')).meta}
}

t.test('a snapshot that the others have, and that was not taken here, is no layer that is the same', async t => {
  const {directory, snapshot} = await interrupted(t)
  const {chain, volume} = await readReplicaDirectory(directory)
  const data = readFileSync(join(directory, 'volume-head-004.img'))
  const below = chain.slice(0, -1).map(({file, meta, sizeBytes}) => ({file, meta, lengthBytes: sizeBytes}))
  const layers = [
    ...below,
    {file: 'volume-snap-s.img', meta: snapshot, lengthBytes: volume.sizeBytes},
    {file: 'volume-snap-joins.img', meta: {...snapshot, name: 'volume-snap-joins.img', parent: 'volume-snap-s.img', created: CREATED}, lengthBytes: volume.sizeBytes},
  ]
  const lock = new DirectoryLock(directory)
  t.teardown(() => lock.close())
  const joined = await joinDirectory(directory, {sizeBytes: volume.sizeBytes, snapshot: 'joins', created: CREATED, layers, resync: false, related: true}, lock)
  t.notOk(readdirSync(directory).includes('volume-snap-s.img.meta'), 'it is not taken for complete')
  t.equal(joined.formerHead, 'volume-snap-s.img', 'it is compared')
  t.ok(readFileSync(join(directory, 'volume-snap-s.img')).equals(data), 'what was written is kept, which saves copying')
  for (const file of readdirSync(directory).filter(name => name.endsWith('.img'))) t.equal(statSync(join(directory, file)).nlink, 1, file)
})

t.test('what a resync has not compared is not taken for the same by the rebuild that follows', async t => {
  const directory = upstreamReplica(t)
  const {chain, volume} = await readReplicaDirectory(directory)
  const below = chain.slice(0, -1).map(({file, meta, sizeBytes}) => ({file, meta, lengthBytes: sizeBytes}))
  const template = {...chain.at(-1)!.meta, created: CREATED, labels: null}
  const first = {file: 'volume-snap-rebuild-00000000000a.img', meta: {...template, parent: below.at(-1)!.file}, lengthBytes: volume.sizeBytes}
  const second = {file: 'volume-snap-rebuild-00000000000b.img', meta: {...template, parent: first.file}, lengthBytes: volume.sizeBytes}
  const common = {sizeBytes: volume.sizeBytes, created: CREATED, related: true}
  const lock = new DirectoryLock(directory)
  t.teardown(() => lock.close())
  const resync = await joinDirectory(directory, {...common, snapshot: 'rebuild-00000000000a', layers: [...below, first], resync: true}, lock)
  t.strictSame([resync.whole, [...resync.doubtful].sort()], [true, [first.file, below.at(-1)!.file].sort()], 'the former head and the layer below it')

  const again = await joinDirectory(directory, {...common, snapshot: 'rebuild-00000000000b', layers: [...below, first, second], resync: false}, lock)
  t.equal(again.whole, false)
  const files = readdirSync(directory)
  for (const {file} of [first, below.at(-1)!]) t.notOk(files.includes(`${file}.meta`), `${file} is compared again`)
  t.ok(files.includes(`${below[0]!.file}.meta`), 'the lowest layer is the same')
})
