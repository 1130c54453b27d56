import {closeSync, ftruncateSync, fstatSync, openSync, readSync, writeSync} from 'node:fs'
import {join} from 'node:path'
import t, {type Test} from 'tap'
import {punchHole, punchHoleSync, zeroRange} from '../../../src/lib/sys/fallocate.js'
import {fiemapScanner, scannerFor, seekScanner, type ExtentScanner} from '../../../src/lib/sys/file-extents.js'

const BLOCK = 4096
const SIZE = 64 * 1024 ** 2

function sparseFile(t: Test): number {
  const fd = openSync(join(t.testdir({file: ''}), 'file'), 'r+')
  t.teardown(() => {
    closeSync(fd)
  })
  ftruncateSync(fd, SIZE)
  return fd
}

/** The blocks that hold data. */
function blocks(scanner: ExtentScanner, fd: number, offset = 0, length = SIZE): number[] {
  const found: number[] = []
  scanner.scan(
    fd,
    offset,
    length,
    (from, bytes) => {
      for (let at = from; at < from + bytes; at += BLOCK) found.push(at / BLOCK)
    },
    true,
  )
  return found
}

for (const scanner of [fiemapScanner, seekScanner]) {
  t.test(`${scanner.method} finds what was written, clipped to the range asked for`, async t => {
    const fd = sparseFile(t)
    if (scanner.unwrittenIsData && scannerFor(fd) !== scanner) return t.pass('not here', {skip: 'this file system has no FIEMAP'})
    t.strictSame(blocks(scanner, fd), [])
    for (const block of [3, 4, 5, 100, SIZE / BLOCK - 1]) writeSync(fd, Buffer.alloc(BLOCK, 1), 0, BLOCK, block * BLOCK)
    t.strictSame(blocks(scanner, fd), [3, 4, 5, 100, SIZE / BLOCK - 1])
    t.strictSame(blocks(scanner, fd, 4 * BLOCK, 96 * BLOCK), [4, 5])
    t.strictSame(blocks(scanner, fd, 6 * BLOCK, BLOCK), [])
    t.strictSame(blocks(scanner, fd, 2 * SIZE, BLOCK), [], 'behind the end')
    punchHoleSync(fd, 4 * BLOCK, BLOCK)
    await punchHole(fd, 100 * BLOCK, BLOCK)
    t.strictSame(blocks(scanner, fd), [3, 5, SIZE / BLOCK - 1])
    return undefined
  })

  t.test(`${scanner.method} with more extents than fit into one call`, async t => {
    const fd = sparseFile(t)
    if (scanner.unwrittenIsData && scannerFor(fd) !== scanner) return t.pass('not here', {skip: 'this file system has no FIEMAP'})
    const wanted: number[] = []
    for (let block = 1; block < 6000; block += 2) {
      writeSync(fd, Buffer.alloc(BLOCK, 1), 0, BLOCK, block * BLOCK)
      wanted.push(block)
    }
    t.strictSame(blocks(scanner, fd), wanted)
    return undefined
  })
}

t.test('zeroed ranges are data to FIEMAP only', async t => {
  const fd = sparseFile(t)
  if (scannerFor(fd) !== fiemapScanner) return t.pass('not here', {skip: 'this file system has no FIEMAP'})
  writeSync(fd, Buffer.alloc(3 * BLOCK, 1), 0, 3 * BLOCK, 0)
  await zeroRange(fd, BLOCK, 1000 * BLOCK)
  const all = Array.from({length: 1001}, (_, block) => block)
  t.strictSame(blocks(fiemapScanner, fd), all)
  // Not just block 0: next to data ext4 may write zeros instead of splitting an extent.
  t.ok(blocks(seekScanner, fd).length < 500)
  const target = Buffer.alloc(1000 * BLOCK, 1)
  readSync(fd, target, 0, target.length, BLOCK)
  t.ok(target.equals(Buffer.alloc(1000 * BLOCK)))
  t.equal(fstatSync(fd).size, SIZE)
  return undefined
})

t.test('failures of the thread pool carry the errno', async t => {
  const bad = {code: 'EBADF', syscall: 'fallocate', message: 'EBADF: bad file descriptor, punching a hole of 4096 bytes at 8192'}
  await t.rejects(punchHole(9999, 8192, 4096), bad)
  t.throws(() => punchHoleSync(9999, 8192, 4096), bad)
  await t.rejects(zeroRange(9999, 0, 4096), {code: 'EBADF', message: /zeroing 4096 bytes at 0/})
  t.throws(() => scannerFor(9999), {code: 'EBADF'})
})
