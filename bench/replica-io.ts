import {closeSync, openSync, readSync, writeSync} from 'node:fs'
import {mkdtemp, rm} from 'node:fs/promises'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {fileURLToPath} from 'node:url'
import {bufferAddress} from '../src/lib/sys/buffer-address.js'
import {readAt, writeAt} from '../src/lib/sys/positioned-io.js'
import {createReplica} from '../src/replica/create-replica.js'
import {openReplica} from '../src/replica/open-replica.js'
import {SectorMap} from '../src/replica/sector-map.js'
import type {ReplicaVolume} from '../src/replica/replica-volume.js'

/**
 * What one request costs in a replica, without network: nanoseconds per call, the best of many rounds, beside the bare
 * system calls. Usage: node dist/bench/replica-io.js [directory, default the system's temporary one]
 */
const VOLUME_BYTES = 4 * 1024 ** 3
const BLOCK = 4096
const CALLS = 20_000

async function main(parent: string): Promise<void> {
  const base = await mkdtemp(join(parent, 'replica-io-'))
  const directory = join(base, 'r1')
  try {
    await createReplica(directory, VOLUME_BYTES)
    await using volume = await openReplica(directory)
    benchmarkMap()
    benchmarkSmall(volume, join(directory, 'volume-head-000.img'))
    for (const depth of [1, 16, 64]) await benchmarkDurable(volume, depth)
    for (const bytes of [128 * 1024, 1024 * 1024]) await benchmarkLarge(volume, bytes)
  } finally {
    await rm(base, {recursive: true, force: true})
  }
}

function benchmarkMap(): void {
  const map = new SectorMap(1024 ** 4)
  const blocks = 65536
  for (let block = 0; block < blocks; block += 2) map.set(block, 1, 1)
  report('sector map: lookup, mixed segment', index => {
    map.lookup(index % blocks)
  })
  report('sector map: set, held already', index => {
    map.set((index * 2) % blocks, 1, 1)
  })
  report('sector map: set, changes holder', index => {
    map.set((index * 2) % blocks, 1, 2 + ((index / blocks) | 0))
  })
}

function benchmarkSmall(volume: ReplicaVolume, headPath: string): void {
  const slab = Buffer.alloc(1024 * 1024, 1)
  const fd = openSync(headPath, 'r+')
  const span = 64 * 1024 * 1024
  const at = (index: number): number => (index * BLOCK) % span
  // First touch of each block: the head must allocate it.
  report(
    'write 4 KiB, block not in the head yet',
    index => {
      void volume.write(slab, BLOCK, BLOCK, index * BLOCK)
    },
    1,
  )
  report('write 4 KiB, block in the head', index => {
    void volume.write(slab, BLOCK, BLOCK, at(index))
  })
  report('  bare pwrite through koffi', index => {
    writeAt(fd, slab, BLOCK, BLOCK, at(index))
  })
  report('  bare fs.writeSync', index => {
    writeSync(fd, slab, BLOCK, BLOCK, at(index))
  })
  report('write 512 bytes, block in the head', index => {
    void volume.write(slab, BLOCK, 512, at(index) + 512)
  })
  report('read 4 KiB, in memory', index => {
    void volume.read(slab, BLOCK, BLOCK, at(index))
  })
  report('  bare pread through koffi', index => {
    readAt(fd, slab, BLOCK, BLOCK, at(index))
  })
  report('  bare fs.readSync', index => {
    readSync(fd, slab, BLOCK, BLOCK, at(index))
  })
  report('read 4 KiB, held by no layer', index => {
    void volume.read(slab, BLOCK, BLOCK, VOLUME_BYTES / 2 + at(index))
  })
  report('address of a buffer', index => {
    bufferAddress(slab, index)
  })
  closeSync(fd)
}

async function benchmarkDurable(volume: ReplicaVolume, depth: number): Promise<void> {
  const source = Buffer.alloc(BLOCK, 2)
  const end = performance.now() + 1500
  let writes = 0
  const worker = async (): Promise<void> => {
    while (performance.now() < end) {
      await volume.write(source, 0, BLOCK, ((writes * 7919) % 16384) * BLOCK, true)
      writes += 1
    }
  }
  await Promise.all(Array.from({length: depth}, worker))
  console.log(`durable writes of 4 KiB, ${depth} in flight`.padEnd(44), `${(writes / 1.5).toFixed(0)} per second`)
}

async function benchmarkLarge(volume: ReplicaVolume, bytes: number): Promise<void> {
  const total = 1024 ** 3
  const source = Buffer.alloc(bytes * 4 + 100, 3)
  for (const round of ['first touch', 'again']) {
    const start = performance.now()
    let position = 0
    const worker = async (slot: number): Promise<void> => {
      while (position < total) {
        const offset = VOLUME_BYTES - total - (bytes > 256 * 1024 ? 0 : total) + position
        position += bytes
        await volume.write(source, slot * bytes + 100, bytes, offset)
      }
    }
    await Promise.all([0, 1, 2, 3].map(worker))
    const written = performance.now()
    await volume.flush()
    const rate = (until: number): string => (total / 1e6 / ((until - start) / 1000)).toFixed(0)
    console.log(`sequential writes of ${bytes / 1024} KiB, ${round}`.padEnd(44), `${rate(written)} MB/s, ${rate(performance.now())} with flush`)
  }
}

function report(name: string, call: (index: number) => void, rounds = 40): void {
  let best = Infinity
  for (let round = 0; round < rounds; round++) {
    const start = process.hrtime.bigint()
    for (let index = 0; index < CALLS; index++) call(index)
    best = Math.min(best, Number(process.hrtime.bigint() - start) / CALLS)
  }
  console.log(name.padEnd(44), `${best.toFixed(0)} ns`)
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main(process.argv[2] ?? tmpdir())
