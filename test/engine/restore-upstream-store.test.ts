import {createHash} from 'node:crypto'
import t from 'tap'
import {loadBackup} from '../../src/backup/catalog.js'
import {isFinished} from '../../src/backup/format/backup-record.js'
import {backupUrl} from '../../src/backup/target-url.js'
import {copyUpstreamStore, restoredSums} from '../backup/upstream-store.js'
import {replicaImage} from '../support/replica-image.js'
import {shortDir} from '../support/short-dir.js'
import {until} from '../support/until.js'
import {engineOptions, runEngine, runReplicas} from './support/running.js'

t.test('what upstream has backed up, into a volume', async t => {
  const store = copyUpstreamStore(t)
  const sums = restoredSums()
  for (const sizeBytes of new Set(sums.map(sum => sum.sizeBytes))) {
    const replicas = await runReplicas(t, shortDir(t), 2, sizeBytes)
    const {engine} = await runEngine(t, engineOptions(replicas, {sizeBytes}))
    // One after the other into the same volume: of the same volume they are incremental, in whatever direction.
    for (const {volume, backup, sha256} of sums.filter(sum => sum.sizeBytes === sizeBytes)) {
      if (!isFinished(await loadBackup(store, volume, backup))) continue
      await engine.restore.start({backup: backupUrl(store.url, volume, backup), credential: new Map(), concurrency: 3}, false)
      await until(() => !engine.restore.running, `${backup} is restored`, 60_000)
      t.match(await engine.restore.status(), {state: 'complete', error: '', usable: true}, backup)
      for (const {directory} of replicas) t.equal(createHash('sha256').update(await replicaImage(directory)).digest('hex'), sha256, backup)
    }
  }
})
