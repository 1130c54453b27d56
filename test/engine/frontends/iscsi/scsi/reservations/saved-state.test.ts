import {mkdirSync, readdirSync, readFileSync, statSync, writeFileSync} from 'node:fs'
import {join} from 'node:path'
import t from 'tap'
import {FileReservationStore} from '../../../../../../src/engine/frontends/iscsi/scsi/reservations/file-reservation-store.js'
import {decodeSavedState, encodeSavedState, type SavedState} from '../../../../../../src/engine/frontends/iscsi/scsi/reservations/saved-state.js'

const STATE: SavedState = {
  registrations: [
    {port: 'iqn.2026-01.test:a,i,0x801234560061', key: '00000000000000a1'},
    {port: 'iqn.2026-01.test:b,i,0x801234560062', key: 'ffffffffffffffff'},
  ],
  reservation: {type: 5, holder: 'iqn.2026-01.test:b,i,0x801234560062'},
  sanitizing: true,
}

t.test('what is saved comes back', async t => {
  const folder = join(t.testdir(), 'not', 'there')
  const store = new FileReservationStore(join(folder, 'vol.json'))
  t.equal(await store.load(), undefined)
  for (const state of [STATE, {...STATE, reservation: undefined}, {registrations: [], reservation: undefined, sanitizing: false}]) {
    await store.save(state)
    t.same(await store.load(), state)
  }
  t.same(readdirSync(folder), ['vol.json'], 'and nothing else is left behind')
  t.equal(statSync(join(folder, 'vol.json')).mode & 0o777, 0o600)
})

t.test('the file is for people as well', async t => {
  t.match(encodeSavedState(STATE), /"version": 1,\n {2}"registrations": \[\n {4}\{\n {6}"port": "iqn/)
})

t.test('a bad file is an error, not an empty one', async t => {
  const path = join(t.testdir(), 'vol.json')
  const good = JSON.parse(encodeSavedState(STATE)) as Record<string, unknown>
  const [first] = STATE.registrations
  for (const content of [
    '',
    '{',
    'null',
    '[]',
    '{}',
    JSON.stringify({...good, version: 2}),
    JSON.stringify({...good, registrations: {}}),
    JSON.stringify({...good, registrations: [null]}),
    JSON.stringify({...good, registrations: [{...first, key: 'a1'}]}),
    JSON.stringify({...good, registrations: [{...first, key: '0000000000000000'}]}),
    JSON.stringify({...good, registrations: [{...first, port: ''}]}),
    JSON.stringify({...good, registrations: [{...first, port: 'x'.repeat(600)}]}),
    JSON.stringify({...good, registrations: [first]}),
    JSON.stringify({...good, registrations: [], reservation: {type: 7, holder: 'x'}}),
    JSON.stringify({...good, reservation: {type: 2, holder: first!.port}}),
    JSON.stringify({...good, reservation: undefined}),
    JSON.stringify({...good, sanitizing: 1}),
  ]) {
    writeFileSync(path, content)
    await t.rejects(new FileReservationStore(path).load(), {code: 'LH_CORRUPT', message: path}, content)
  }
  const forAll = {...good, registrations: [first], reservation: {type: 7, holder: 'gone'}}
  t.ok(decodeSavedState(JSON.stringify(forAll), path), 'with a type for all registrants the one who made it may be gone')
})

t.test('what can be neither read nor written', async t => {
  const path = join(t.testdir(), 'vol.json')
  mkdirSync(path)
  await t.rejects(new FileReservationStore(path).load(), {code: 'LH_IO'})
  await t.rejects(new FileReservationStore(path).save(STATE), {code: 'LH_IO'})
  const file = join(t.testdir({file: 'x'}), 'file')
  await t.rejects(new FileReservationStore(join(file, 'vol.json')).save(STATE), {code: 'LH_IO'})
  t.equal(readFileSync(file, 'utf8'), 'x')
})
