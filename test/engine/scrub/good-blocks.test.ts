// How the blocks that are right are read, from a replica that does not give all of them.
import {createHash} from 'node:crypto'
import t from 'tap'
import {readGood, type BlockSource, type Wanted} from '../../../src/engine/scrub/good-blocks.js'
import type {BlockCopy} from '../../../src/engine/scrub/verdict.js'
import {Pattern} from '../../support/pattern.js'

const BLOCK = 4096
const REGION = 256
const pattern = new Pattern()

function block(number: number): Buffer {
  return pattern.at((REGION + number) * BLOCK, BLOCK)
}

function wanted(...blocks: readonly number[]): Wanted[] {
  return blocks.map(number => ({block: number, digest: createHash('sha256').update(block(number)).digest('hex')}))
}

function copies(unreadable: readonly number[] = []): BlockCopy[] {
  return Array.from({length: REGION}, (_, number) => ({replica: 0, digest: unreadable.includes(number) ? undefined : 'x', held: true, visible: true}))
}

/** Region 1 of a layer in which some blocks cannot be read. Notes what it was asked for, in blocks of the region. */
class Source implements BlockSource {
  readonly asked: [first: number, count: number][] = []
  readonly abort = new AbortController()
  readonly signal = this.abort.signal

  constructor(
    readonly bad: readonly number[] = [],
    readonly content: (number: number) => Buffer = block,
  ) {}

  async read(layer: string, offset: number, length: number): Promise<Buffer> {
    const first = offset / BLOCK - REGION
    const count = length / BLOCK
    this.asked.push([first, count])
    const numbers = Array.from({length: count}, (_, index) => first + index)
    if (numbers.some(number => this.bad.includes(number))) throw new Error(`${layer} cannot be read`)
    return Buffer.concat(numbers.map(this.content))
  }
}

t.test('what lies near together is read at once', async t => {
  const source = new Source()
  const found = await readGood(source, 'layer', 1, wanted(0, 1, 2, 10, 27, 45, 255), copies())
  t.same(source.asked, [[0, 28], [45, 1], [255, 1]])
  for (const number of [0, 1, 2, 10, 27, 45, 255]) t.same(found.get(number), {data: block(number)})
  t.equal(found.size, 7, 'and nothing else')
  const all = new Source()
  await readGood(all, 'layer', 1, wanted(...Array.from({length: REGION}, (_, number) => number)), copies())
  t.same(all.asked, [[0, 256]])
  t.equal((await readGood(source, 'layer', 1, [], copies())).size, 0)
})

t.test('nothing that is known to be bad is read on the way', async t => {
  const source = new Source([5])
  const found = await readGood(source, 'layer', 1, wanted(3, 4, 6, 7), copies([5]))
  t.same(source.asked, [[3, 2], [6, 2]])
  t.equal(found.size, 4)
})

t.test('a run that fails is read block by block', async t => {
  const source = new Source([11, 13])
  const found = await readGood(source, 'layer', 1, wanted(10, 11, 12, 14), copies())
  t.same(source.asked, [[10, 5], [10, 1], [11, 1], [12, 1], [14, 1]])
  t.same(found.get(11), {reason: 'layer cannot be read'})
  for (const number of [10, 12, 14]) t.same(found.get(number), {data: block(number)}, 'what is bad between them is nobody\'s')
  const alone = new Source([11])
  t.match(await readGood(alone, 'layer', 1, wanted(11), copies()), new Map([[11, {reason: 'layer cannot be read'}]]))
  t.equal(alone.asked.length, 1, 'one block is not tried twice')
})

t.test('what is not what was agreed on is not taken', async t => {
  const source = new Source([], number => (number === 21 ? block(22) : block(number)))
  const found = await readGood(source, 'layer', 1, wanted(20, 21, 22), copies())
  t.same(found.get(20), {data: block(20)})
  t.same(found.get(21), {reason: 'it has changed since it was compared'})
  t.same(found.get(22), {data: block(22)})
})

t.test('cancelled', async t => {
  const source = new Source([1])
  source.abort.abort(new Error('enough'))
  await t.rejects(readGood(source, 'layer', 1, wanted(0, 1), copies()), /enough/)
})
