import {closeSync, fstatSync, openSync, readdirSync, readFileSync} from 'node:fs'
import {join} from 'node:path'
import t, {type Test} from 'tap'
import {connectSocket} from '../../../src/lib/net/connect.js'
import {FdChannel} from '../../../src/lib/net/fd-channel.js'
import {Listener} from '../../../src/lib/net/listener.js'
import {peerCredentials, sendMessage} from '../../../src/lib/net/socket-calls.js'
import {bufferAddress} from '../../../src/lib/sys/buffer-address.js'
import {shortDir} from '../../support/short-dir.js'

const WAIT_MS = 30_000

/** The two ends, closed after the test. */
async function pair(t: Test): Promise<[FdChannel, FdChannel]> {
  const address = {kind: 'unix', path: join(shortDir(t), 's')} as const
  let accepted: (fd: number) => void = () => undefined
  const other = new Promise<number>(resolve => (accepted = resolve))
  const listener = await Listener.open(address, fd => accepted(fd))
  const ends = [new FdChannel(await connectSocket(address, WAIT_MS), 'left'), new FdChannel(await other, 'right')] as [FdChannel, FdChannel]
  await listener.close()
  t.teardown(() => ends.forEach(end => end.close()))
  return ends
}

t.test('messages and descriptors arrive in order, whatever their number', async t => {
  const [left, right] = await pair(t)
  const file = join(t.testdir({content: 'the file'}), 'content')
  const fds = Array.from({length: 300}, () => openSync(file, 'r'))
  left.send({first: 1})
  left.send({text: 'x'.repeat(3_000_000)}, fds)
  left.send({last: 'ä'})
  t.same(await right.receive(WAIT_MS), {first: 1})
  t.equal(((await right.receive(WAIT_MS)) as {text: string}).text.length, 3_000_000)
  t.same(await right.receive(WAIT_MS), {last: 'ä'})
  const received = right.takeFds()
  t.equal(received.length, fds.length)
  t.ok(received.every(fd => fstatSync(fd).ino === fstatSync(fds[0]!).ino && !fds.includes(fd)))
  t.equal(readFileSync(received[299]!, 'utf8'), 'the file')
  for (const fd of [...fds, ...received]) closeSync(fd)
  t.equal(peerCredentials(left.fd).pid, process.pid)
})

t.test('an end is said once what came before it was read; descriptors that nobody took are closed', async t => {
  const [left, right] = await pair(t)
  const before = readdirSync('/proc/self/fd').length
  const fd = openSync('/dev/null', 'r')
  left.send({some: 'thing'}, [fd])
  t.same(await right.receive(WAIT_MS), {some: 'thing'})
  left.close()
  left.close()
  await t.rejects(right.receive(WAIT_MS), {code: 'LH_UNREACHABLE'})
  t.throws(() => left.send({}), {code: 'LH_UNREACHABLE'})
  closeSync(fd)
  t.equal(readdirSync('/proc/self/fd').length, before - 2, 'both sockets are closed, and what came along')
})

t.test('nothing comes, and what comes is no message', async t => {
  const [left, right] = await pair(t)
  await t.rejects(right.receive(5), {code: 'LH_TIMEOUT'})
  const bytes = Buffer.alloc(64, 0xff)
  const vector = Buffer.alloc(16)
  vector.writeBigUInt64LE(BigInt(bufferAddress(bytes)), 0)
  vector.writeBigUInt64LE(64n, 8)
  const message = Buffer.alloc(56)
  message.writeBigUInt64LE(BigInt(bufferAddress(vector)), 16)
  message.writeBigUInt64LE(1n, 24)
  sendMessage(left.fd, bufferAddress(message))
  await t.rejects(right.receive(WAIT_MS), {code: 'LH_PROTOCOL'})
})
