import t from 'tap'
import {slabs} from '../../../../src/lib/net/slab.js'
import {OP, type BlockDevice, type Extent, type Io} from '../../../../src/protocol/block-device.js'
import {NbdServer} from '../../../../src/engine/frontends/nbd/server.js'
import {shortDir} from '../../../support/short-dir.js'
import {until} from '../../../support/until.js'
import {NbdClient} from './support/nbd-client.js'
import {recordedLog} from './support/served.js'
import {CMD, request} from './support/wire.js'

const MIB = 1024 * 1024

/** What the byte at this offset is. */
const byteAt = (offset: number): number => (offset >> 9) % 251

/**
 * The meanest device that keeps the contract: every read has a slab of its own, which it lets go of as soon as it may, so that
 * whoever takes one next overwrites what was not retained.
 */
class SlabPerReadDevice implements BlockDevice {
  readonly sizeBytes = 64 * MIB
  reads = 0
  #submitted = 0

  submit(io: Io): void {
    // Several are delivered in one go, and the pieces of one request not together.
    setTimeout(() => {
      if (io.op === OP.READ) this.#deliver(io)
      io.onDone(0)
    }, ((this.#submitted++ * 7) % 5) * 4)
  }

  blockStatus(offset: number, length: number): Promise<Extent[]> {
    return Promise.resolve([{offset, length, allocated: true}])
  }

  #deliver(io: Io): void {
    this.reads++
    const slab = slabs.take()
    // Also around the data, where something else may have been before.
    slab.buffer.fill(255)
    for (let at = 0; at < io.length; at += 512) slab.buffer.fill(byteAt(io.offset + at), at, Math.min(at + 512, io.length))
    io.onData(slab, 0)
    // Behind the flush of this turn, which is planned with setImmediate as well.
    setImmediate(() => setImmediate(() => slab.release()))
  }
}

async function open(t: Parameters<typeof shortDir>[0]): Promise<{device: SlabPerReadDevice; path: string; server: NbdServer}> {
  const device = new SlabPerReadDevice()
  const path = `${shortDir(t)}/s`
  const server = await NbdServer.open({volume: 'vol', device, listen: {kind: 'unix', path}, log: recordedLog().log})
  t.teardown(() => server.close(0))
  return {device, path, server}
}

t.test('what is sent is what was read, whatever happens to the slabs it came in', async t => {
  const {path} = await open(t)
  const clients = await Promise.all([NbdClient.openSimple(path), NbdClient.openSimple(path), NbdClient.open(path), NbdClient.open(path)])
  const reads = clients.flatMap((client, which) =>
    Array.from({length: 24}, (_, index) => {
      const offset = ((which * 24 + index) * 512 * 1000) % (48 * MIB)
      const length = [MIB, 300 * 1024, 8192, 4 * MIB][index % 4] ?? 0
      return client.read(offset, length).then(data => ({offset, data}))
    }),
  )
  const wrong: string[] = []
  for (const {offset, data} of await Promise.all(reads)) {
    for (let at = 0; at < data.length; at += 512) {
      if (data[at] !== byteAt(offset + at) || data[at + 511] !== data[at]) wrong.push(`${offset} + ${at}: ${data[at]}`)
    }
  }
  t.same(wrong.slice(0, 5), [])
  for (const client of clients) await client.close()
})

t.test('a client that does not take small replies does not hold a slab for each', async t => {
  const {path, device, server} = await open(t)
  const before = slabs.inUse
  const client = await NbdClient.open(path)
  client.socket.pause()
  client.socket.write(Buffer.concat(Array.from({length: 20_000}, (_, index) => request({command: CMD.READ, offset: index * 512, length: 4096}))))
  let seen = -1
  while (seen !== device.reads) {
    seen = device.reads
    await new Promise(resolve => setTimeout(resolve, 50))
  }
  t.ok(seen > 300 && seen < 20_000)
  t.ok(slabs.inUse - before < 100, `${slabs.inUse - before} slabs for ${seen} blocks`)
  client.kill()
  await until(() => server.connections === 0 && slabs.inUse <= before, 'all are given back')
})
