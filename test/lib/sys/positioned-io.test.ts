import {closeSync, openSync, readFileSync} from 'node:fs'
import {join} from 'node:path'
import t from 'tap'
import {bufferAddress} from '../../../src/lib/sys/buffer-address.js'
import {readAt, readCachedAt, writeAt} from '../../../src/lib/sys/positioned-io.js'

t.test('writes and reads at an offset, from and to the middle of a buffer', async t => {
  const path = join(t.testdir({file: ''}), 'file')
  const fd = openSync(path, 'r+')
  t.equal(writeAt(fd, Buffer.from('..hello..'), 2, 5, 10), 5)
  t.equal(readFileSync(path, 'latin1'), `${'\0'.repeat(10)}hello`)
  const target = Buffer.from('----------')
  t.equal(readAt(fd, target, 3, 5, 10), 5)
  t.equal(target.toString(), '---hello--')
  t.equal(readAt(fd, target, 0, 10, 12), 3, 'less at the end of the file')
  t.equal(readAt(fd, target, 0, 10, 15), 0, 'nothing behind it')
  t.equal(readCachedAt(fd, target, 0, 5, 10), 5)
  closeSync(fd)
})

t.test('offsets beyond 32 bits', async t => {
  const fd = openSync(join(t.testdir({file: ''}), 'file'), 'r+')
  const far = 5 * 1024 ** 4 + 3
  t.equal(writeAt(fd, Buffer.from('far'), 0, 3, far), 3)
  const target = Buffer.alloc(3)
  t.equal(readAt(fd, target, 0, 3, far), 3)
  t.equal(target.toString(), 'far')
  closeSync(fd)
})

t.test('a range outside the buffer never reaches the C library', async t => {
  const fd = openSync(join(t.testdir({file: 'abc'}), 'file'), 'r+')
  for (const call of [readAt, writeAt, readCachedAt]) {
    for (const [start, length] of [[0, 5], [4, 1], [-1, 2], [0, -1], [NaN, 1], [0, NaN]] as const) {
      t.throws(() => call(fd, Buffer.alloc(4), start, length, 0), RangeError, `${call.name} ${start} ${length}`)
    }
  }
  closeSync(fd)
})

t.test('a failure has the code, the text and what we were doing', async t => {
  const fd = openSync(join(t.testdir({file: ''}), 'file'), 'r')
  t.throws(() => writeAt(fd, Buffer.alloc(4), 0, 4, 7), {
    code: 'EBADF',
    syscall: 'pwrite',
    message: 'EBADF: bad file descriptor, writing 4 bytes at 7',
  })
  closeSync(fd)
  const full = openSync('/dev/full', 'r+')
  t.throws(() => writeAt(full, Buffer.alloc(4), 0, 4, 0), {code: 'ENOSPC', errno: -28, message: /no space left on device/})
  closeSync(full)
  t.throws(() => readAt(9999, Buffer.alloc(4), 0, 4, 0), {code: 'EBADF'})
  t.throws(() => readCachedAt(9999, Buffer.alloc(4), 0, 4, 0), {code: 'EBADF'})
})

t.test('the address of a buffer', async t => {
  const slab = Buffer.alloc(10_000)
  const view = slab.subarray(100, 200)
  t.equal(bufferAddress(view), bufferAddress(slab) + 100)
  t.equal(bufferAddress(Buffer.alloc(10_000)) === bufferAddress(slab), false)
  t.equal(bufferAddress(view, 5), bufferAddress(slab, 105))
})
