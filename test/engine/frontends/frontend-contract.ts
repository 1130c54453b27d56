import {randomBytes} from 'node:crypto'
import {existsSync} from 'node:fs'
import type {Test} from 'tap'
import type {Frontend, FrontendKind} from '../../../src/engine/frontends/frontend.js'
import type {Address} from '../../../src/lib/address.js'
import {openLog} from '../../../src/lib/log.js'
import {ERRNO} from '../../../src/protocol/block-device.js'
import {shortDir} from '../../support/short-dir.js'
import {until} from '../../support/until.js'
import {MemoryDevice} from '../support/memory-device.js'

const KIB = 1024
const MIB = 1024 * KIB
const SIZE = 16 * MIB

/** One initiator, as a frontend's own tests reach it. What fails rejects, with whatever error. */
export interface InitiatorClient {
  read(offset: number, length: number): Promise<Buffer>
  /** `fua`: it survives a power cut when this resolves. */
  write(offset: number, data: Buffer, fua?: boolean): Promise<void>
  flush(): Promise<void>
  discard(offset: number, length: number): Promise<void>
  zeroes(offset: number, length: number): Promise<void>
  /** Requests reads without taking what comes back. */
  readWithoutTaking(count: number, length: number): void
  /** Takes again what has been requested. */
  takeAgain(): void
  /** Breaks off, whatever is under way. */
  kill(): void
  close(): Promise<void>
}

/** What the contract needs to know of a frontend. */
export interface FrontendAdapter {
  readonly kind: FrontendKind
  connect(frontend: Frontend): Promise<InitiatorClient>
  /** An address of this frontend's sort that is free; `folder` is new and empty. Undefined: it takes none. */
  address(folder: string): Address | undefined
  /** What its initiators can ask for. The rest of the contract is not tried. */
  readonly can: {
    /** Requests at any offset, of any length. */
    readonly unaligned: boolean
    readonly flush: boolean
    readonly fua: boolean
    readonly discard: boolean
    readonly zeroes: boolean
    /** Reads and writes of this many bytes. */
    readonly requestBytes: number
    /** Replies that nobody takes pile up somewhere: a client can be slow. */
    readonly slowReaders: boolean
    /** Several clients at once. */
    readonly severalClients: boolean
  }
}

/** The promises that every FrontendKind keeps. Each kind's own test file calls this. */
export function frontendContract(t: Test, adapter: FrontendAdapter): void {
  const {kind, can} = adapter
  const unit = can.unaligned ? 1 : 512

  async function open(t: Test, device = new MemoryDevice(SIZE)): Promise<{device: MemoryDevice; frontend: Frontend; address: Address | undefined}> {
    const address = adapter.address(shortDir(t))
    const log = openLog({write: () => undefined}, {})
    const frontend = await kind.open({volume: 'contract', device, listen: address, log})
    t.teardown(() => frontend.close(0))
    return {device, frontend, address}
  }

  t.test('what is written is read back, at any size and offset there may be', async t => {
    const {device, frontend} = await open(t)
    const client = await adapter.connect(frontend)
    const sizes = [unit, 512, 4096, 4096 + unit, 128 * KIB, 128 * KIB + unit, MIB].filter(size => size <= can.requestBytes)
    for (const size of sizes) {
      for (const offset of [0, unit, 4096, 5 * unit, SIZE - size]) {
        const data = randomBytes(size)
        await client.write(offset, data)
        t.ok((await client.read(offset, size)).equals(data), `${size} bytes at ${offset}`)
        t.ok(device.bytes.subarray(offset, offset + size).equals(data), 'and the device has them')
      }
    }
    await client.close()
  })

  t.test('nothing outside the volume can be reached', async t => {
    const {device, frontend} = await open(t)
    const client = await adapter.connect(frontend)
    await t.rejects(client.read(SIZE, 512))
    await t.rejects(client.read(SIZE - 512, 1024))
    await t.rejects(client.write(SIZE - 512, Buffer.alloc(1024, 1)))
    await t.rejects(client.write(SIZE, Buffer.alloc(512, 1)))
    if (can.discard) await t.rejects(client.discard(SIZE - 512, 1024))
    if (can.zeroes) await t.rejects(client.zeroes(SIZE - 512, 1024))
    t.ok(device.bytes.equals(Buffer.alloc(SIZE)))
    t.ok((await client.read(SIZE - 512, 512)).equals(Buffer.alloc(512)), 'and the client may go on')
    await client.close()
  })

  t.test('an error of the device is an error of the request, and of no other', async t => {
    const {device, frontend} = await open(t)
    const client = await adapter.connect(frontend)
    device.fault = io => (io.offset < 4096 ? ERRNO.EIO : ERRNO.OK)
    const results = await Promise.allSettled([client.read(0, 4096), client.write(0, Buffer.alloc(4096)), client.write(4096, Buffer.alloc(4096, 7)), client.read(8192, 4096)])
    t.same(
      results.map(result => result.status),
      ['rejected', 'rejected', 'fulfilled', 'fulfilled'],
    )
    device.fault = () => ERRNO.OK
    device.full = true
    await t.rejects(client.write(64 * KIB, Buffer.alloc(4096)), 'a full disk')
    await client.write(4096, Buffer.alloc(4096, 8))
    t.pass('what has its space can still be written')
    await client.close()
  })

  t.test('requests in flight together do not get into each other, whatever order they finish in', async t => {
    const {device, frontend} = await open(t)
    const client = await adapter.connect(frontend)
    device.mode = 'later'
    const size = Math.min(can.requestBytes, 12 * KIB)
    const parts = Array.from({length: 64}, (_, index) => ({offset: index * size, data: randomBytes(size)}))
    await Promise.all(parts.map(({offset, data}) => client.write(offset, data)))
    device.mode = 'held'
    const reads = Promise.all(parts.map(({offset}) => client.read(offset, size)))
    await until(() => device.held > 0, 'requests are with the device')
    // Everything that is there by now goes backwards; the rest follows in its own order.
    device.release(held => held.toReversed())
    device.mode = 'later'
    const timer = setInterval(() => device.release(), 1)
    const found = await reads
    clearInterval(timer)
    t.ok(found.every((data, index) => data.equals(parts[index]?.data ?? Buffer.alloc(0))))
    await client.close()
  })

  t.test('flush and FUA reach the device', {skip: can.flush ? false : 'initiators cannot ask for it'}, async t => {
    const {device, frontend} = await open(t)
    const client = await adapter.connect(frontend)
    await client.write(0, Buffer.alloc(4096, 1))
    await client.write(8192, Buffer.alloc(4096, 1))
    await client.flush()
    t.same([...device.dirty], [])
    if (can.fua) {
      await client.write(4096, Buffer.alloc(4096, 2), true)
      t.notOk(device.dirty.has(1))
      const large = Math.min(can.requestBytes, MIB)
      await client.write(0, Buffer.alloc(large, 2), true)
      t.equal(device.dirty.size, 0, 'also a large one')
    }
    device.fault = io => (io.length === 0 ? ERRNO.EIO : ERRNO.OK)
    await t.rejects(client.flush(), 'a flush that failed is not reported as done')
    device.fault = () => ERRNO.OK
    await client.close()
  })

  t.test('discarded and zeroed ranges', {skip: can.discard || can.zeroes ? false : 'initiators cannot ask for it'}, async t => {
    const {device, frontend} = await open(t)
    const client = await adapter.connect(frontend)
    await client.write(0, Buffer.alloc(64 * KIB, 1))
    if (can.zeroes) {
      await client.zeroes(4096 - unit, 2 * 4096)
      const data = await client.read(0, 64 * KIB)
      t.ok(data.subarray(4096 - unit, 3 * 4096 - unit).equals(Buffer.alloc(2 * 4096)))
      t.ok([data[4096 - unit - 1], data[3 * 4096 - unit]].every(byte => byte === 1), 'and nothing around them')
      await client.zeroes(0, SIZE)
      t.ok(device.bytes.equals(Buffer.alloc(SIZE)), 'all of the volume')
    }
    if (can.discard) {
      await client.discard(4096, 4096)
      await client.discard(0, SIZE)
      t.ok(device.bytes.equals(Buffer.alloc(SIZE)))
    }
    await client.close()
  })

  t.test('several clients see the same volume', {skip: can.severalClients ? false : 'there is only one'}, async t => {
    const {frontend} = await open(t)
    const clients = await Promise.all(Array.from({length: 8}, () => adapter.connect(frontend)))
    await Promise.all(clients.map((client, index) => client.write(index * 4096, Buffer.alloc(4096, index + 1))))
    for (const client of clients) {
      const data = await client.read(0, 8 * 4096)
      t.ok(clients.every((_, index) => data[index * 4096] === index + 1))
    }
    await Promise.all(clients.map(client => client.close()))
  })

  t.test('a client that breaks off in the middle of its requests leaves no trace', async t => {
    const {device, frontend} = await open(t)
    const doomed = await adapter.connect(frontend)
    device.mode = 'held'
    const lost = Promise.allSettled([...Array.from({length: 20}, (_, index) => doomed.read(index * 4096, 4096)), doomed.write(0, Buffer.alloc(8192, 1)), doomed.read(0, can.requestBytes)])
    await until(() => device.held > 0, 'requests are with the device')
    doomed.kill()
    t.ok((await lost).every(result => result.status === 'rejected'))
    device.mode = 'now'
    const other = can.severalClients ? await adapter.connect(frontend) : undefined
    await other?.write(SIZE - 4096, Buffer.alloc(4096, 9))
    // Only now does the device finish what nobody waits for.
    while (device.held > 0) device.release()
    await until(() => device.inFlight === 0, 'all is finished')
    const next = await adapter.connect(frontend)
    await next.write(4096, Buffer.alloc(4096, 3))
    t.ok((await next.read(4096, 4096)).equals(Buffer.alloc(4096, 3)))
    await other?.close()
    await next.close()
  })

  t.test('a client that does not take its replies is not read ahead of', {skip: can.slowReaders ? false : 'cannot happen'}, async t => {
    const {device, frontend} = await open(t)
    const slow = await adapter.connect(frontend)
    const length = Math.min(can.requestBytes, 128 * KIB)
    device.records = []
    const wanted = Math.ceil((256 * MIB) / length)
    slow.readWithoutTaking(wanted, length)
    let before = -1
    // Until nothing moves any more.
    while (before !== device.records.length) {
      before = device.records.length
      await new Promise(resolve => setTimeout(resolve, 100))
    }
    t.ok(device.records.length > 0)
    const readBytes = device.records.reduce((sum, record) => sum + record.length, 0)
    t.ok(readBytes < 64 * MIB, `${Math.round(readBytes / MIB)} MiB of 256 were read for it`)
    if (can.severalClients) {
      const other = await adapter.connect(frontend)
      await other.write(0, Buffer.alloc(4096, 1))
      t.pass('others are served meanwhile')
      await other.close()
    }
    slow.takeAgain()
    await until(() => (device.records ?? []).length >= wanted, 'all was read', 60_000)
    t.pass('it gets the rest when it wants it')
    slow.kill()
  })

  t.test('close lets what is in flight finish', async t => {
    const {device, frontend} = await open(t)
    const client = await adapter.connect(frontend)
    device.mode = 'held'
    const write = client.write(4096, Buffer.alloc(4096, 5))
    await until(() => device.held > 0, 'requests are with the device')
    let closed = false
    const closing = frontend.close(10_000).then(() => (closed = true))
    await new Promise(resolve => setTimeout(resolve, 30))
    t.notOk(closed)
    device.mode = 'now'
    device.release()
    await write
    t.ok(device.bytes.subarray(4096, 8192).equals(Buffer.alloc(4096, 5)))
    await closing
    client.kill()
  })

  t.test('close does not wait longer than it may', async t => {
    const {device, frontend} = await open(t)
    const client = await adapter.connect(frontend)
    device.mode = 'held'
    const read = t.rejects(client.read(0, 4096))
    const write = t.rejects(client.write(0, Buffer.alloc(4096)))
    await until(() => device.held > 0, 'requests are with the device')
    const started = performance.now()
    await frontend.close(50)
    t.ok(performance.now() - started < 60_000)
    await Promise.all([read, write])
    device.mode = 'now'
    while (device.held > 0) device.release()
    t.pass('and what finishes afterwards does no harm')
    client.kill()
  })

  t.test('close twice, with and without clients', async t => {
    const {frontend} = await open(t)
    const client = await adapter.connect(frontend)
    await Promise.all([frontend.close(100), frontend.close(100)])
    await frontend.close()
    await t.rejects(client.read(0, 512))
    client.kill()
    await t.rejects(adapter.connect(frontend), 'nobody is there any more')
    const {frontend: unused} = await open(t)
    await unused.close()
  })

  t.test('an address that is in use is a CONFLICT, and free again after close', async t => {
    const {device, frontend, address} = await open(t)
    if (address === undefined) {
      t.comment('this frontend takes no address')
      return
    }
    const log = openLog({write: () => undefined}, {})
    // Port 0 was another one each time.
    const taken = address.kind === 'tcp' ? {...address, port: Number(/:(\d+)/.exec(frontend.endpoint)?.[1])} : address
    await t.rejects(kind.open({volume: 'other', device, listen: taken, log}), {code: 'LH_CONFLICT'})
    const client = await adapter.connect(frontend)
    t.ok((await client.read(0, 512)).equals(Buffer.alloc(512)), 'the first is not disturbed')
    await client.close()
    await frontend.close()
    if (taken.kind === 'unix') t.notOk(existsSync(taken.path), 'no socket is left')
    const again = await kind.open({volume: 'other', device, listen: taken, log})
    await again.close()
  })
}
