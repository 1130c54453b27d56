import {PassThrough} from 'node:stream'
import t from 'tap'
import {startProgress} from '../../src/cli/progress.js'

function logFile(): {stream: NodeJS.WriteStream; text: () => string} {
  const stream = new PassThrough()
  return {stream: stream as unknown as NodeJS.WriteStream, text: () => String(stream.read() ?? '')}
}

t.test('in a log file, the beginning and the end are lines and what comes fast in between is not', async t => {
  const {stream, text} = logFile()
  const progress = await startProgress('rebuilding', stream)
  for (let percent = 0; percent < 100; percent += 1) progress.update(`rebuilding ${percent} %`)
  progress.succeed('rebuilt')
  t.equal(text(), 'rebuilding\nrebuilt\n')
})

t.test('leaving the scope without an end prints nothing more', async t => {
  const {stream, text} = logFile()
  {
    using progress = await startProgress('rebuilding', stream)
    t.ok(progress)
  }
  t.equal(text(), 'rebuilding\n')
})

t.test('a terminal that has no width gets lines, too', {timeout: 60_000}, async t => {
  const {stream, text} = logFile()
  Object.assign(stream, {isTTY: true, columns: 0})
  const progress = await startProgress('rebuilding', stream)
  progress.succeed('rebuilt')
  t.equal(text(), 'rebuilding\nrebuilt\n')
})
