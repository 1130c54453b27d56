import {setImmediate as nextTurn} from 'node:timers/promises'
import t from 'tap'
import {RepeatLog} from '../../src/lib/repeat-log.js'
import {memoryLog} from '../engine/support/fake-replicas.js'
import {until} from '../support/until.js'

const NEVER_MS = 3_600_000

t.test('the first of a kind is written at once, later ones are counted', t => {
  const {log, lines} = memoryLog()
  const repeats = new RepeatLog(log, NEVER_MS)
  for (let offset = 0; offset < 100; offset++) repeats.warn('a', {offset}, 'read failed')
  repeats.warn('b', {offset: 7}, 'read failed')
  repeats.error('a', {offset: 8}, 'write failed')
  t.match(lines, [
    {level: 'warn', offset: 0, msg: 'read failed'},
    {level: 'warn', offset: 7, msg: 'read failed'},
    {level: 'error', offset: 8, msg: 'write failed'},
  ])
  t.equal(lines.length, 3)
  t.notOk(lines.some(line => 'times' in line))
  repeats.close()
  t.match(lines.slice(3), [{level: 'warn', offset: 99, times: 99, msg: 'read failed'}], 'the end says what was counted')
  t.equal(lines.length, 4)
  repeats.close()
  t.equal(lines.length, 4)
  repeats.warn('a', {offset: 9}, 'read failed')
  t.match(lines.slice(4), [{offset: 9}], 'nothing is lost after it')
  t.end()
})

t.test('what was counted is said every interval, and all of it', async t => {
  const {log, lines} = memoryLog()
  const repeats = new RepeatLog(log, 5)
  t.teardown(() => repeats.close())
  let asked = 0
  await until(async () => {
    for (let count = 0; count < 50; count++) repeats.error('a', {asked: asked++}, 'read failed')
    await nextTurn()
    return lines.length > 5
  }, 'it is said several times')
  repeats.close()
  const said = lines.reduce((sum, {times = 1}) => sum + (times as number), 0)
  t.equal(said, asked)
  t.match(lines.at(-1), {asked: asked - 1})
})

t.test('a kind that was quiet begins again', async t => {
  const {log, lines} = memoryLog()
  const repeats = new RepeatLog(log, 5)
  t.teardown(() => repeats.close())
  repeats.warn('a', {}, 'read failed')
  await until(() => {
    repeats.warn('other', {}, 'something else')
    return lines.filter(({msg}) => msg === 'something else').length > 5
  }, 'several intervals have passed')
  repeats.warn('a', {again: true}, 'read failed')
  t.match(lines.filter(({msg}) => msg === 'read failed'), [{}, {again: true}])
})
