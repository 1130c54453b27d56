// What becomes of many runs when the disk refuses some of their blocks.
import {openSync, closeSync, readFileSync, writeFileSync} from 'node:fs'
import {join} from 'node:path'
import t, {type Test} from 'tap'
import {rewriteRuns, RunRewriter, type ReadableDisk, type Run, type WritableFile} from '../../../src/replica/scrub/rewrite-runs.js'
import {Pattern} from '../../support/pattern.js'

const BLOCK = 4096
const BLOCKS = 512
const pattern = new Pattern()

/** A file whose disk refuses some blocks, at one of the steps. */
class BadDisk implements WritableFile, ReadableDisk {
  readonly fd: number
  readonly cached = Buffer.alloc(BLOCKS * BLOCK)
  readonly stored = Buffer.alloc(BLOCKS * BLOCK)
  readonly #dirty = new Set<number>()
  syncs = 0
  writes = 0

  constructor(
    t: Test,
    readonly faults: {readonly writing?: readonly number[]; readonly syncing?: readonly number[]; readonly reading?: readonly number[]; readonly lying?: readonly number[]; readonly errno?: string},
  ) {
    // What the kernel is told to forget is that of a file.
    const path = join(t.testdir({}), 'file')
    writeFileSync(path, '')
    this.fd = openSync(path, 'r')
    t.teardown(() => closeSync(this.fd))
  }

  async write(bytes: Buffer, from: number, length: number, position: number): Promise<{bytesWritten: number}> {
    this.writes++
    // Never more at once than this, as the kernel may do.
    const taken = Math.min(length, 10 * BLOCK)
    this.#refuse(this.faults.writing, position, taken)
    bytes.copy(this.cached, position, from, from + taken)
    for (let at = position; at < position + taken; at += BLOCK) this.#dirty.add(at / BLOCK)
    return {bytesWritten: taken}
  }

  async datasync(): Promise<void> {
    this.syncs++
    const dirty = [...this.#dirty]
    this.#dirty.clear()
    for (const block of dirty) if (!this.faults.syncing?.includes(block)) this.cached.copy(this.stored, block * BLOCK, block * BLOCK, (block + 1) * BLOCK)
    for (const block of dirty) this.#refuse(this.faults.syncing, block * BLOCK, BLOCK)
  }

  async read(length: number, offset: number): Promise<Buffer> {
    this.#refuse(this.faults.reading, offset, length)
    const bytes = Buffer.from(this.stored.subarray(offset, offset + length))
    for (const block of this.faults.lying ?? []) if (block * BLOCK >= offset && block * BLOCK < offset + length) bytes[block * BLOCK - offset]! ^= 1
    return bytes
  }

  #refuse(blocks: readonly number[] = [], offset: number, length: number): void {
    if (!blocks.some(block => block * BLOCK < offset + length && (block + 1) * BLOCK > offset)) return
    throw Object.assign(new Error('refused'), {code: this.faults.errno ?? 'EIO'})
  }
}

function runs(...places: readonly (readonly [first: number, count: number])[]): Run[] {
  return places.map(([first, count]) => ({offset: first * BLOCK, bytes: pattern.at(first * BLOCK, count * BLOCK)}))
}

const MANY = runs([0, 256], [258, 1], [260, 32], [300, 100])
const ALL = MANY.flatMap(({offset, bytes}) => Array.from({length: bytes.length / BLOCK}, (_, index) => offset / BLOCK + index))

t.test('many runs: one sync, each is read back', async t => {
  const disk = new BadDisk(t, {})
  t.same(await new RunRewriter('file', disk, disk).rewrite(MANY), [])
  t.equal(disk.syncs, 1)
  for (const block of ALL) t.ok(disk.stored.subarray(block * BLOCK, (block + 1) * BLOCK).equals(pattern.at(block * BLOCK, BLOCK)))
})

for (const step of ['writing', 'syncing', 'reading', 'lying'] as const) {
  t.test(`blocks that are refused while ${step}: these, and no others`, async t => {
    const bad = [3, 127, 258, 260, 291, 350]
    const disk = new BadDisk(t, {[step]: bad})
    const refused = await new RunRewriter('layer.img', disk, disk).rewrite(MANY)
    t.same(refused.map(({offset}) => offset / BLOCK), bad)
    for (const {error} of refused) t.match(error, {code: 'LH_IO', message: step === 'lying' ? /layer\.img gives back something else/ : /healing 4096 bytes at \d+ of layer\.img: i\/o error/})
    const good = ALL.filter(block => !bad.includes(block))
    t.ok(good.every(block => disk.stored.subarray(block * BLOCK, (block + 1) * BLOCK).equals(pattern.at(block * BLOCK, BLOCK))), 'all others are on the disk')
  })
}

t.test('only the run that cannot be read back is done again', async t => {
  const disk = new BadDisk(t, {reading: [270]})
  t.match(await new RunRewriter('file', disk, disk).rewrite(MANY), [{offset: 270 * BLOCK}])
  t.equal(disk.syncs, 1 + 32)
})

t.test('a disk that refuses everything, or is full', async t => {
  for (const [errno, code] of [['EIO', 'LH_IO'], ['ENOSPC', 'LH_NO_SPACE'], ['EDQUOT', 'LH_NO_SPACE']] as const) {
    const disk = new BadDisk(t, {syncing: ALL, errno})
    const refused = await new RunRewriter('file', disk, disk).rewrite(MANY)
    t.same(refused.map(({offset}) => offset / BLOCK), ALL)
    t.ok(refused.every(({error}) => error.code === code), errno)
  }
})

t.test('in a real file, up to an end that is no whole block', async t => {
  const path = join(t.testdir({}), 'file')
  const size = 20 * BLOCK + 512
  writeFileSync(path, Buffer.alloc(size, 1))
  const ends = {offset: 19 * BLOCK, bytes: pattern.at(19 * BLOCK, BLOCK + 512)}
  t.same(await rewriteRuns(path, [...runs([2, 5]), ends]), [])
  const expected = Buffer.alloc(size, 1)
  for (const {offset, bytes} of [...runs([2, 5]), ends]) bytes.copy(expected, offset)
  t.ok(readFileSync(path).equals(expected), 'and nothing else of it is changed')
  await t.rejects(rewriteRuns(`${path}.not`, runs([0, 1])), {code: 'ENOENT'})
})
