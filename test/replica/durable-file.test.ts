import {readFileSync, readdirSync, statSync, writeFileSync} from 'node:fs'
import {join} from 'node:path'
import t from 'tap'
import {replaceFile} from '../../src/replica/durable-file.js'
import {realDisk, type DiskSteps} from '../../src/replica/disk-steps.js'
import {FaultyDisk, stops} from './support/faulty-disk.js'

t.test('replaces the content and leaves nothing else', async t => {
  const directory = t.testdir({})
  const path = join(directory, 'x')
  await replaceFile(path, 'one', 0o600)
  t.equal(statSync(path).mode & 0o777, 0o600)
  await replaceFile(path, Buffer.from('two'))
  t.equal(readFileSync(path, 'utf8'), 'two')
  t.strictSame(readdirSync(directory), ['x'])
})

t.test('stopped at any step, with or without a power cut, the file is old or new and whole', async t => {
  for (let step = 0; step < 3; step++) {
    for (const mask of [0, 1, 2, 3]) {
      const directory = t.testdir({x: 'the old content'})
      const disk = new FaultyDisk(step)
      t.ok(await stops(replaceFile(join(directory, 'x'), 'the new content', 0o644, disk)))
      disk.losePower(mask)
      t.match(readFileSync(join(directory, 'x'), 'utf8'), /^the (old|new) content$/, `step ${step}, lost ${mask}`)
      t.strictSame(readdirSync(directory).filter(file => file !== 'x' && file !== 'x.tmp'), [])
    }
  }
})

t.test('a failed write leaves the old content and no temporary file', async t => {
  const directory = t.testdir({x: 'old'})
  const full: DiskSteps = {
    ...realDisk,
    async writeSynced(path, content) {
      writeFileSync(path, content.slice(0, 1))
      throw Object.assign(new Error('full'), {code: 'ENOSPC'})
    },
  }
  await t.rejects(replaceFile(join(directory, 'x'), 'new', 0o644, full), {code: 'ENOSPC'})
  t.strictSame(readdirSync(directory), ['x'])
  t.equal(readFileSync(join(directory, 'x'), 'utf8'), 'old')
})
