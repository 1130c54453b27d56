import {cpSync, linkSync, readFileSync, readdirSync, rmSync, statSync, truncateSync, writeFileSync} from 'node:fs'
import {join} from 'node:path'
import t from 'tap'
import {openReplica} from '../../src/replica/open-replica.js'
import {FaultyDisk, stops} from './support/faulty-disk.js'
import {upstreamReplica} from './support/fixture.js'

/** What upstream leaves in the directory when it dies inside a snapshot "s" of head 004, by the last step that was done. */
const CRASHES: Record<string, (path: (file: string) => string) => void> = {
  'new head created': newHead,
  'snapshot linked': path => {
    newHead(path)
    linkSync(path('volume-head-004.img'), path('volume-snap-s.img'))
  },
  'snapshot and its meta linked': linked,
  'volume.meta written': committed,
  'old head removed, its meta not': path => {
    committed(path)
    rmSync(path('volume-head-004.img'))
  },
}

function newHead(path: (file: string) => string): void {
  writeFileSync(path('volume-head-005.img'), '')
  truncateSync(path('volume-head-005.img'), 16 * 1024 ** 2)
  writeFileSync(path('volume-head-005.img.meta'), '{"Name":"volume-head-005.img","Parent":"volume-snap-s.img"}\n')
}

function linked(path: (file: string) => string): void {
  newHead(path)
  linkSync(path('volume-head-004.img'), path('volume-snap-s.img'))
  linkSync(path('volume-head-004.img.meta'), path('volume-snap-s.img.meta'))
}

function committed(path: (file: string) => string): void {
  linked(path)
  const meta = readFileSync(path('volume.meta'), 'utf8')
  writeFileSync(path('volume.meta'), meta.replace('volume-head-004', 'volume-head-005').replace('snap-four', 'snap-s'))
}

t.test('a snapshot interrupted at any step is taken back or completed, and the data is the same', async t => {
  for (const [name, crash] of Object.entries(CRASHES)) {
    const directory = upstreamReplica(t)
    const before = await content(directory)
    crash(file => join(directory, file))
    const done = readFileSync(join(directory, 'volume.meta'), 'utf8').includes('head-005')
    t.ok((await content(directory)).equals(before), name)
    const heads = readdirSync(directory).filter(file => file.startsWith('volume-head'))
    t.strictSame(heads, done ? ['volume-head-005.img', 'volume-head-005.img.meta'] : ['volume-head-004.img', 'volume-head-004.img.meta'], name)
    t.equal(readdirSync(directory).includes('volume-snap-s.img'), done, name)
  }
})

t.test('a stop during the clean-up is found again', async t => {
  for (let step = 0; ; step++) {
    const directory = upstreamReplica(t)
    linked(file => join(directory, file))
    writeFileSync(join(directory, 'volume.meta.tmp'), '{"Si')
    const disk = new FaultyDisk(step)
    const opening = openReplica(directory, {disk}).then(volume => volume.abandon())
    if (!(await stops(opening))) {
      t.ok(step > 6)
      return
    }
    disk.losePower(0b10101)
    const volume = await openReplica(directory)
    await volume.close()
    const files = readdirSync(directory).filter(file => /head-005|snap-s|tmp/.test(file))
    t.strictSame(files, [], `stopped at step ${step}`)
  }
})

t.test('temporary files go, whatever else is there stays', async t => {
  const directory = upstreamReplica(t)
  const before = readdirSync(directory)
  const temporary = ['volume.meta.tmp', 'volume-snap-one.img.meta.tmp', 'volume-snap-one.img.checksum.tmp', 'volume-snap-one.img.checksum..tmp']
  const others = ['notes.tmp', 'volume-delta-backup.img', 'volume-snap-one.img.snap_tmp', 'lost.meta']
  for (const file of [...temporary, ...others]) writeFileSync(join(directory, file), '')
  const volume = await openReplica(directory)
  t.strictSame([...volume.leftovers].sort(), [...temporary].sort())
  await volume.close()
  t.strictSame(readdirSync(directory), [...before, ...others].sort())
})

t.test('a foreign head with data of its own, and one that is a parent, stay', async t => {
  const directory = upstreamReplica(t)
  const path = (file: string): string => join(directory, file)
  cpSync(path('volume-snap-one.img'), path('volume-head-001.img'))
  writeFileSync(path('volume-head-001.img.meta'), '{"Parent":"volume-snap-one.img"}')
  writeFileSync(path('volume-head-002.img'), '')
  writeFileSync(path('volume-head-002.img.meta'), '{"Parent":""}')
  writeFileSync(path('volume-snap-branch.img'), '')
  writeFileSync(path('volume-snap-branch.img.meta'), '{"Parent":"volume-head-002.img"}')
  const volume = await openReplica(directory)
  t.strictSame(volume.leftovers, [])
  await volume.close()
  t.ok(statSync(path('volume-head-001.img')).blocks > 0)
  t.ok(statSync(path('volume-head-002.img')).isFile())
})

async function content(directory: string): Promise<Buffer> {
  await using volume = await openReplica(directory)
  const all = Buffer.alloc(volume.sizeBytes)
  volume.readSync(all, 0, all.length, 0)
  return all
}
