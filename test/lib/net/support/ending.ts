// A process that ends, in the way its argument says, while the reactor is busy or asleep.
import {setTimeout as delay} from 'node:timers/promises'
import {ByteStream} from '../../../../src/lib/net/byte-stream.js'
import {socketPair} from '../../../support/sockets.js'

const echo = {
  onInput(stream: ByteStream): void {
    const {start} = stream
    stream.start = stream.end
    stream.output.push(stream.slab, start, stream.end - start)
    stream.flushSoon()
  },
  onClose: () => undefined,
}

const [state, how] = process.argv.slice(2)
const [near, far] = socketPair()
const one = new ByteStream(near, echo, 'one')
const other = new ByteStream(far, echo, 'other')
if (state === 'busy') {
  one.output.reserve(10)
  one.output.commit(10)
  one.flushSoon()
}
// Longer than the reactor lingers.
await delay(state === 'busy' ? 10 : 60)
process.stdout.write('reached')
switch (how) {
  case 'exit':
    process.exit(7)
    break
  case 'throw':
    setImmediate(() => {
      throw new Error('a bug')
    })
    break
  case 'wait':
    setInterval(() => undefined, 1000)
    break
  default:
    // Nothing is left to do: the process is expected to find that out by itself.
    one.destroy()
    other.destroy()
}
