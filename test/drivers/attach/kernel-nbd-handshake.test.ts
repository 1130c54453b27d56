import {mkdtempSync, rmSync} from 'node:fs'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import t, {type Test} from 'tap'
import {connectExport} from '../../../src/drivers/attach/kernel-nbd/nbd-handshake.js'
import {isInstalled} from '../../../src/drivers/attach/run-command.js'
import {closeFd} from '../../../src/lib/net/socket-calls.js'
import {Nbdkit, type NbdkitOptions} from './support/nbdkit.js'

const MIB = 1024 * 1024
const FLAGS = {has: 1, readOnly: 2, flush: 4, trim: 32}

const skip = (await isInstalled('nbdkit')) ? false : 'nbdkit is not installed'

t.test('the connection is ready for requests, and what the server said of the export is known', {skip}, async t => {
  const {path} = await serve(t, {sizeBytes: 8 * MIB})
  const {fd, sizeBytes, flags} = connectExport(path, '', 5000)
  t.equal(sizeBytes, 8 * MIB)
  t.equal(flags & FLAGS.has, FLAGS.has)
  t.equal(flags & FLAGS.flush, FLAGS.flush)
  t.equal(flags & FLAGS.readOnly, 0)
  closeFd(fd)
})

t.test('an export that cannot be written to', {skip}, async t => {
  const {path} = await serve(t, {sizeBytes: MIB, readOnly: true})
  const {fd, flags} = connectExport(path, 'any name', 5000)
  t.equal(flags & FLAGS.readOnly, FLAGS.readOnly)
  closeFd(fd)
})

t.test('a server that says nothing', {skip}, async t => {
  const {path, server} = await serve(t, {sizeBytes: MIB})
  server.suspend()
  t.throws(() => connectExport(path, '', 200), {code: 'LH_TIMEOUT'})
  server.resume()
})

t.test('nobody there', async t => {
  t.throws(() => connectExport(join(tmpdir(), 'no-such-socket'), '', 1000), {code: 'ENOENT'})
  t.throws(() => connectExport({family: 4, address: '127.0.0.1', port: 1}, '', 1000), {code: 'ECONNREFUSED'})
})

async function serve(t: Test, options: NbdkitOptions): Promise<{path: string; server: Nbdkit}> {
  const folder = mkdtempSync(join(tmpdir(), 'lh-'))
  const server = await Nbdkit.start(folder, 'v', options)
  t.teardown(async () => {
    server.resume()
    await server.kill()
    rmSync(folder, {recursive: true})
  })
  return {path: join(folder, 'v.sock'), server}
}
