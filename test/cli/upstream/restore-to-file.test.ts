import {randomBytes} from 'node:crypto'
import {readdirSync, readFileSync, writeFileSync} from 'node:fs'
import {join} from 'node:path'
import {execa} from 'execa'
import t from 'tap'
import {BackedUp} from '../../engine/support/backed-up.js'
import {missing} from '../../peers/support/tool.js'
import {shortDir} from '../../support/short-dir.js'
import {longhorn} from '../run-program.js'

const MIB = 1024 ** 2
const SIZE = 8 * MIB

t.test('to a raw image', async t => {
  const folder = shortDir(t)
  const source = new BackedUp(join(folder, 'store'), SIZE)
  source.volume.write(MIB, randomBytes(3 * MIB))
  const url = await source.backup('one')
  const file = join(folder, 'volume.raw')
  writeFileSync(file, 'what was there')
  t.match(await longhorn(['backup', 'restore-to-file', url, '--output-file', file, '--output-format', 'raw']), {exitCode: 0, stdout: ''})
  t.ok(readFileSync(file).equals(source.image('one')))

  t.match(await longhorn(['backup', 'restore-to-file', source.url('none'), '--output-file', file, '--output-format', 'raw']), {exitCode: 1, stdout: /cannot find/})
  t.match(await longhorn(['backup', 'restore-to-file', url, '--backing-file', 'base.qcow2']), {exitCode: 1, stderr: /based on an image are not supported/})
  t.ok(readFileSync(file).equals(source.image('one')), 'what is there stays when it fails')
  t.same(readdirSync(folder).sort(), ['store', 'volume.raw'])
})

t.test('to a qcow2 image', {skip: await missing('qemu-img')}, async t => {
  const folder = shortDir(t)
  const source = new BackedUp(join(folder, 'store'), SIZE)
  source.volume.write(MIB, randomBytes(3 * MIB))
  const url = await source.backup('one')
  const file = join(folder, 'volume.qcow2')
  const back = join(folder, 'back.raw')
  t.match(await longhorn(['backup', 'restore-to-file', '-output-file', file, url]), {exitCode: 0, stdout: ''})
  const {stdout} = await execa('qemu-img', ['info', '--output=json', file])
  t.match(JSON.parse(stdout), {format: 'qcow2', 'virtual-size': SIZE})
  await execa('qemu-img', ['convert', '-O', 'raw', file, back])
  t.ok(readFileSync(back).equals(source.image('one')))
  t.same(readdirSync(folder).sort(), ['back.raw', 'store', 'volume.qcow2'])
  t.match(await longhorn(['backup', 'restore-to-file', '-output-file', join(folder, 'store'), url]), {exitCode: 1, stdout: /no regular file/}, 'found out before anything is read')
  t.match(await longhorn(['backup', 'restore-to-file', '-output-file', file, source.url('none')]), {exitCode: 1, stdout: /cannot find/})
  t.same(readdirSync(folder).sort(), ['back.raw', 'store', 'volume.qcow2'], 'nothing else is left')
})
