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
