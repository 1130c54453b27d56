import {closeSync, openSync, writeSync} from 'node:fs'
import {join} from 'node:path'
import t from 'tap'
import {MEMBERSHIP_FILE, readRecord, writeRecord} from '../../src/replica/membership.js'

function record(generation: number) {
  return {id: 'one', sequence: generation, membership: {generation, members: ['one'], lineage: ['volume', `change-${generation}`]}}
}

t.test('every record is read again, the newest of two', async t => {
  const directory = t.testdir({})
  t.equal(await readRecord(directory), undefined)
  for (let generation = 1; generation <= 5; generation++) {
    await writeRecord(directory, record(generation))
    t.same(await readRecord(directory), record(generation))
  }
})

t.test('a record that was cut short leaves the one before', async t => {
  for (const last of [4, 5]) {
    const directory = t.testdir({})
    for (let generation = 1; generation <= last; generation++) await writeRecord(directory, record(generation))
    const file = openSync(join(directory, MEMBERSHIP_FILE), 'r+')
    writeSync(file, Buffer.alloc(512), 0, 512, (last % 2) * 4096)
    closeSync(file)
    t.same(await readRecord(directory), record(last - 1))
  }
})
