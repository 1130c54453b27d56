import t, {type Test} from 'tap'
import {SectorMap} from '../../src/replica/sector-map.js'
import {type Random, seededRandom} from './support/random.js'

t.test('a new map has no holders', async t => {
  const map = new SectorMap(10 * 1024 ** 2)
  t.equal(map.blocks, 2560)
  t.equal(map.lookup(0), 0)
  t.equal(map.lookup(2559), 0)
  t.equal(map.runLength(0, 2560), 2560)
  t.equal(map.mixedSegments, 0)
})

t.test('a segment that becomes uniform gives its table back', async t => {
  const map = new SectorMap(4 * 1024 ** 2)
  for (let block = 0; block < 511; block++) map.set(block, 1, 3)
  t.equal(map.mixedSegments, 1)
  map.set(511, 1, 3)
  t.equal(map.mixedSegments, 0)
  t.equal(map.runLength(0, 1024), 512)
  map.set(100, 10, 2)
  map.set(0, 512, 3)
  t.equal(map.mixedSegments, 0)
})

t.test('the last segment becomes uniform although it is not full', async t => {
  const map = new SectorMap(2 * 1024 ** 2 + 3 * 4096)
  map.set(512, 1, 1)
  map.set(513, 1, 1)
  t.equal(map.mixedSegments, 1)
  map.set(514, 1, 1)
  t.equal(map.mixedSegments, 0)
  t.equal(map.runLength(512, 3), 3)
})

t.test('setting no blocks changes nothing', async t => {
  const map = new SectorMap(4096 * 700)
  map.set(700, 0, 5)
  map.set(3, 0, 5)
  t.equal(map.runLength(0, 700), 700)
  t.equal(map.lookup(0), 0)
})

t.test('a volume of 64 TiB', async t => {
  const map = new SectorMap(64 * 1024 ** 4)
  const last = map.blocks - 1
  map.set(last - 1000, 1001, 7)
  t.equal(map.lookup(last), 7)
  t.equal(map.lookup(last - 1000), 7)
  t.equal(map.lookup(last - 1001), 0)
  t.equal(map.runLength(last - 1000, 1001), 1001)
})

t.test('behaves like an array', async t => {
  const random = seededRandom(t)
  for (const blocks of [1, 511, 512, 513, 5000, 20_000]) check(t, random, blocks)
})

function check(t: Test, random: Random, blocks: number): void {
  const map = new SectorMap(blocks * 4096)
  const model = new Uint16Array(blocks)
  for (let step = 0; step < 5000; step++) {
    const first = random.below(blocks)
    const most = random.oneIn(4) ? blocks - first : Math.min(blocks - first, 20)
    const count = 1 + random.below(most)
    const layer = random.oneIn(20) ? 0xffff : random.below(4)
    map.set(first, count, layer)
    model.fill(layer, first, first + count)
    const at = random.below(blocks)
    const limit = 1 + random.below(blocks - at)
    let run = 1
    while (run < limit && model[at + run] === model[at]) run += 1
    if (map.lookup(at) !== model[at] || map.runLength(at, limit) !== run) {
      t.fail(`step ${step} of ${blocks} blocks: block ${at}, limit ${limit}`, {
        found: [map.lookup(at), map.runLength(at, limit)],
        wanted: [model[at], run],
      })
      return
    }
  }
  const wrong = [...model.entries()].filter(([block, layer]) => map.lookup(block) !== layer)
  t.strictSame(wrong, [], `${blocks} blocks`)
  let mixed = 0
  for (let start = 0; start < blocks; start += 512) {
    if (model.subarray(start, start + 512).some(layer => layer !== model[start])) mixed += 1
  }
  t.equal(map.mixedSegments, mixed, 'only mixed segments have a table')
}

t.test('a map that grows: what was there stays, and nobody holds what is new', async t => {
  const block = 4096
  const map = new SectorMap(700 * block)
  map.set(0, 700, 1)
  map.set(600, 100, 2)
  map.grow(3000 * block)
  t.equal(map.blocks, 3000)
  t.same([0, 599, 600, 699, 700, 1023, 1024, 2999].map(at => map.lookup(at)), [1, 1, 2, 2, 0, 0, 0, 0])
  t.equal(map.runLength(700, 2300), 2300)
  map.set(690, 2310, 3)
  t.same([689, 690, 2999].map(at => map.lookup(at)), [2, 3, 3])
  map.grow(3001 * block)
  t.same([2999, 3000].map(at => map.lookup(at)), [3, 0])
})
