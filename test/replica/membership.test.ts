import {readFileSync, statSync, truncateSync, writeFileSync} from 'node:fs'
import {join} from 'node:path'
import t from 'tap'
import {checkMembership, MEMBERSHIP_FILE, readRecord, removeRecord, writeRecord} from '../../src/replica/membership.js'
import {RecordKeeper} from '../../src/replica/record-keeper.js'
import {memoryLog} from '../engine/support/fake-replicas.js'
import {shortDir} from '../support/short-dir.js'

const SLOT = 4096
const membership = (generation: number) => ({generation, members: ['a', 'b'], lineage: ['volume', `change-${generation}`]})

t.test('written in turn into two slots, of which one is always whole', async t => {
  const directory = shortDir(t)
  const path = join(directory, MEMBERSHIP_FILE)
  t.equal(await readRecord(directory), undefined)
  for (let sequence = 1; sequence <= 5; sequence++) {
    const before = sequence === 1 ? undefined : readFileSync(path)
    await writeRecord(directory, {sequence, id: 'me', membership: membership(sequence)})
    t.equal(statSync(path).size, 2 * SLOT)
    t.same(await readRecord(directory), {sequence, id: 'me', membership: membership(sequence)})
    if (before === undefined) continue
    const after = readFileSync(path)
    const slot = (sequence % 2) * SLOT
    // Cut short anywhere: what was there before is read.
    for (const bytes of [0, 1, 64, 65, 300, SLOT - 1]) {
      const torn = Buffer.from(before)
      after.copy(torn, slot, slot, slot + bytes)
      writeFileSync(path, torn)
      t.match(await readRecord(directory), {sequence: bytes === 0 ? sequence - 1 : torn.equals(after) ? sequence : sequence - 1}, `${bytes} bytes of ${sequence}`)
    }
    writeFileSync(path, after)
  }
  const space = statSync(path).blocks
  await writeRecord(directory, {sequence: 6, id: 'me', membership: membership(6)})
  t.equal(statSync(path).blocks, space, 'it takes no more space')
  await removeRecord(directory)
  t.equal(await readRecord(directory), undefined)
})

t.test('a file that holds nothing whole', async t => {
  const directory = shortDir(t)
  const path = join(directory, MEMBERSHIP_FILE)
  writeFileSync(path, '')
  t.equal(await readRecord(directory), undefined, 'made, and never filled')
  writeFileSync(path, Buffer.alloc(2 * SLOT))
  t.equal(await readRecord(directory), undefined)
  writeFileSync(path, 'x'.repeat(2 * SLOT))
  await t.rejects(readRecord(directory), {code: 'LH_CORRUPT', message: new RegExp(path)})
  await writeRecord(directory, {sequence: 1, id: 'me', membership: membership(1)})
  truncateSync(path, SLOT)
  await t.rejects(readRecord(directory), {code: 'LH_CORRUPT'})
})

t.test('what comes from outside', async t => {
  checkMembership(membership(1))
  const many = Array.from({length: 33}, (_, index) => `${index}`)
  for (const wrong of [{generation: 0}, {generation: -1}, {generation: 1.5}, {members: []}, {members: many}, {members: ['']}, {members: ['a b']}, {members: ['x'.repeat(65)]}, {members: ['\n']}, {lineage: []}, {lineage: many}, {lineage: ['ü']}]) {
    t.throws(() => checkMembership({...membership(1), ...wrong}), {code: 'LH_USAGE'}, JSON.stringify(wrong).slice(0, 60))
  }
  const longest = {generation: 2 ** 53 - 1, members: Array.from({length: 32}, () => 'x'.repeat(64)), lineage: Array.from({length: 16}, () => 'y'.repeat(16))}
  checkMembership(longest)
  await writeRecord(shortDir(t), {sequence: 1, id: 'z'.repeat(64), membership: longest})
})

t.test('generations only grow, and somebody else\'s changes end the record', async t => {
  const directory = shortDir(t)
  const {log} = memoryLog()
  const keeper = new RecordKeeper(directory, log)
  await keeper.load(true)
  t.equal(keeper.record, undefined)
  await keeper.settle()
  const {id} = keeper.record!
  t.match(id, /^[0-9a-f-]{36}$/)
  await Promise.all([keeper.set(membership(2)), keeper.set(membership(1)), keeper.set(membership(3))])
  await keeper.set(membership(2))
  t.same(keeper.record!.membership, membership(3))
  const again = new RecordKeeper(directory, log)
  await again.load(true)
  t.match(again.record, {id, membership: membership(3)})
  const foreign = new RecordKeeper(directory, log)
  await foreign.load(false)
  t.equal(foreign.record, undefined)
  await foreign.settle()
  t.not(foreign.record!.id, id)
  t.equal(foreign.record!.membership, undefined)
})
