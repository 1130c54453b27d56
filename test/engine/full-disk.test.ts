// A replica whose disk has no space left, while more is done than writing.
import {rmSync, writeFileSync} from 'node:fs'
import {join} from 'node:path'
import t from 'tap'
import {replicaImage} from '../support/replica-image.js'
import {Pattern} from '../support/pattern.js'
import {write} from '../support/request.js'
import {shortDir} from '../support/short-dir.js'
import {until} from '../support/until.js'
import {mountSmall} from '../replica/support/small-file-system.js'
import {engineOptions, runEngine, runReplica, SIZE_BYTES} from './support/running.js'

const MIB = 1024 * 1024
const pattern = new Pattern()

t.test('snapshots and rebuilds on a full disk: the reason is told, and with space again they work', async t => {
  const small = mountSmall(t, 'tmpfs', 6)
  if (small === undefined) return
  const one = await runReplica(t, join(shortDir(t), 'one'), SIZE_BYTES)
  const two = await runReplica(t, join(small, 'two'), SIZE_BYTES)
  const {engine, close} = await runEngine(t, engineOptions([one, two]))
  const ballast = join(small, 'ballast')
  for (let offset = 0; offset < 3 * MIB; offset += 65_536) await write(engine.volume, offset, pattern.at(offset, 65_536))
  fill(ballast)
  await t.rejects(engine.takeSnapshot('full', {}), {code: 'LH_NO_SPACE'})
  t.same(engine.replicas.map(({mode}) => mode), ['RW', 'RW'], 'nothing has changed')
  rmSync(ballast)
  await engine.takeSnapshot('full', {})

  await engine.removeReplica(two.address)
  await two.server.close()
  rmSync(join(small, 'two'), {recursive: true})
  const again = await runReplica(t, join(small, 'two'), SIZE_BYTES)
  writeFileSync(ballast, Buffer.alloc(4 * MIB, 1))
  await engine.addReplica(again.address)
  const info = () => engine.rebuilds.find(({address}) => address === again.address)
  await until(() => info()?.state !== 'in_progress', 'the rebuild has ended', 60_000)
  t.match(info(), {state: 'error', error: /no space left/})
  rmSync(ballast)
  await engine.addReplica(again.address)
  await until(() => info()?.state !== 'in_progress', 'the rebuild has ended', 60_000)
  t.match(info(), {state: 'complete'})
  for (const snapshot of ['full', undefined]) t.ok((await replicaImage(again.directory, snapshot)).equals(await replicaImage(one.directory, snapshot)))
  await close()
})

/** Takes what is left of the disk. */
function fill(path: string): void {
  try {
    writeFileSync(path, Buffer.alloc(16 * MIB, 1))
  } catch {
    // Full is what we want.
  }
}
