import t from 'tap'
import {CONFLICT, GOOD, hex, serve, type Initiator} from '../support/served-disk.js'

const RESERVE = '16 00 00 00 00 00'
const RELEASE = '17 00 00 00 00 00'
const READ = '28 00 00000000 00 0001 00'
const REGISTER = hex('0000000000000000 0000000000000001 00000000 00 000000')

async function statuses(initiator: Initiator, cdbs: readonly string[]): Promise<number[]> {
  const all = []
  for (const cdb of cdbs) all.push((await initiator.send(cdb)).status)
  return all
}

t.test('RESERVE keeps others out of nearly everything', async t => {
  const {a, join} = await serve()
  const b = await join('b')
  for (const [reserve, release] of [[RESERVE, RELEASE], ['56 00 00 00 00 00 00 0000 00', '57 00 00 00 00 00 00 0000 00']] as const) {
    t.same(await statuses(a, [reserve, reserve]), [GOOD, GOOD])
    const refused = [reserve, READ, '2a 00 00000000 00 0001 00', '00 00 00 00 00 00', '1a 08 3f 00 ff 00', '5e 00 00 00 00 00 00 0100 00', '1e 00 00 00 01 00', '35 00 00000000 00 0000 00', 'a3 0c 00 00 0000 00000100 00 00']
    t.same(await statuses(b, refused), refused.map(() => CONFLICT))
    const allowed = [release, '12 00 00 00ff 00', 'a0 00 00 000000 00000100 00 00', '03 00 00 00 ff 00', '25 00 00000000 00 00 00 00', '1e 00 00 00 00 00']
    t.same(await statuses(b, allowed), allowed.map(() => GOOD), 'RELEASE of somebody else does nothing')
    t.same(await statuses(b, [READ]), [CONFLICT])
    t.same(await statuses(a, [READ, release]), [GOOD, GOOD])
    t.same(await statuses(b, [READ, reserve, release]), [GOOD, GOOD, GOOD])
  }
})

t.test('it ends with the session, and with a reset', async t => {
  const {a, join, server} = await serve()
  const b = await join('b')
  await a.send(RESERVE)
  a.leave()
  t.same(await statuses(b, [READ, RESERVE]), [GOOD, GOOD])
  const c = await join('c').catch(() => undefined)
  t.ok(c)
  server.reset(b.nexus, 1)
  await c!.attentions()
  t.same(await statuses(c!, [RESERVE]), [GOOD])
  server.reset(b.nexus, undefined)
  await b.attentions()
  t.same(await statuses(b, [READ]), [GOOD])
})

t.test('persistent reservations cannot be used meanwhile, not even by the holder', async t => {
  const {a} = await serve()
  await a.send(RESERVE)
  t.equal((await a.send('5f 06 00 00 00 00000018 00', {out: REGISTER})).status, CONFLICT)
  t.equal((await a.send('5e 00 00 00 00 00 00 0100 00')).status, CONFLICT)
  await a.send(RELEASE)
  t.equal((await a.send('5f 06 00 00 00 00000018 00', {out: REGISTER})).status, GOOD)
})

t.test('CRH: who has it already is told so, others conflict', async t => {
  const {a, join} = await serve()
  const b = await join('b')
  const c = await join('c')
  await a.send('5f 06 00 00 00 00000018 00', {out: REGISTER})
  t.same(await statuses(a, [RESERVE, RELEASE]), [CONFLICT, CONFLICT], 'registered, and nobody holds anything')
  t.same(await statuses(b, [RESERVE, RELEASE]), [CONFLICT, CONFLICT])
  const key = hex('0000000000000001 0000000000000000 00000000 00 000000')
  t.equal((await a.send('5f 01 05 00 00 00000018 00', {out: key})).status, GOOD)
  await b.send('5f 06 00 00 00 00000018 00', {out: REGISTER})
  t.same(await statuses(a, [RESERVE, RELEASE]), [GOOD, GOOD], 'the holder')
  t.same(await statuses(b, [RESERVE, RELEASE]), [GOOD, GOOD], 'a registrant of a type for registrants')
  t.same(await statuses(c, [RESERVE, RELEASE]), [CONFLICT, CONFLICT])
  t.same(await statuses(b, [READ]), [GOOD], 'nothing has been reserved')
})

t.test('reserving for others is refused', async t => {
  const {a} = await serve()
  for (const cdb of ['56 10 00 07 00 00 00 0000 00', '56 02 00 00 00 00 00 0000 00', '57 10 00 00 00 00 00 0000 00', '16 10 00 00 00 00', '16 01 00 00 00 00']) {
    t.equal((await a.send(cdb)).sense, '5/24/00')
  }
})
