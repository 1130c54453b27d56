import t from 'tap'
import {LonghornError} from '../../src/lib/errors.js'
import {openLog} from '../../src/lib/log.js'
import {prettyLines} from '../../src/lib/pretty-log.js'

function capture(): {lines: string[]; stream: {write(line: string): void}} {
  const lines: string[] = []
  return {lines, stream: {write: line => void lines.push(line)}}
}

t.test('an entry is one line of JSON with its level by name', async t => {
  const {lines, stream} = capture()
  openLog(stream, {}).child({component: 'engine'}).info({replica: 'tcp://10.0.0.3:9502'}, 'replica added')
  t.equal(lines.length, 1)
  t.match(JSON.parse(lines[0] ?? ''), {
    level: 'info',
    time: /^\d{4}-\d\d-\d\dT/,
    component: 'engine',
    replica: 'tcp://10.0.0.3:9502',
    msg: 'replica added',
  })
})

t.test('an error keeps its code and its stack', async t => {
  const {lines, stream} = capture()
  openLog(stream, {}).error({err: new LonghornError('IO', 'disk gone')}, 'write failed')
  t.match(JSON.parse(lines[0] ?? ''), {err: {code: 'LH_IO', message: 'disk gone', stack: /log\.test/}})
})

t.test('LONGHORN_LOG_LEVEL decides what is written', async t => {
  const {lines, stream} = capture()
  openLog(stream, {LONGHORN_LOG_LEVEL: 'error'}).warn('not this')
  openLog(stream, {LONGHORN_LOG_LEVEL: 'debug'}).debug('this')
  openLog(stream, {}).debug('not this')
  t.equal(lines.length, 1)
})

t.test('a level that does not exist is a usage error', async t => {
  t.throws(() => openLog(capture().stream, {LONGHORN_LOG_LEVEL: 'loud'}), {code: 'LH_USAGE', message: /"loud"/})
})

t.test('for people an entry is one line with the fields behind', async t => {
  const {lines, stream} = capture()
  const log = openLog(
    prettyLines(line => stream.write(line)),
    {},
  )
  log.child({component: 'engine'}).warn({replica: 'a', tries: 3}, 'slow')
  t.match(lines[0], /^\d\d:\d\d:\d\d\.\d{3} WARN {2}engine: slow replica=a tries=3\n$/)
  log.error({err: new Error('boom')}, 'failed')
  t.match(lines[1], /failed\nError: boom\n\s+at /)
})
