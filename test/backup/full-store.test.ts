// A file system below a store that is full, in the middle of a backup.
import {randomBytes} from 'node:crypto'
import {readFileSync, rmSync, writeFileSync} from 'node:fs'
import {join} from 'node:path'
import t from 'tap'
import {createBackup} from '../../src/backup/create.js'
import {restoreToFile} from '../../src/backup/restore-file.js'
import {VfsStore} from '../../src/backup/store/vfs.js'
import {verifyBackups} from '../../src/backup/verify.js'
import {mountSmall} from '../replica/support/small-file-system.js'
import {listed} from './faulty-store.js'
import {MemoryVolume} from './memory-volume.js'

const MIB = 1024 ** 2
const options = {volume: 'vol', concurrency: 3, settleMs: 10}

for (const kind of ['ext4', 'tmpfs'] as const) {
  t.test(`a full ${kind}`, async t => {
    const base = mountSmall(t, kind, 64)
    if (base === undefined) return
    const store = new VfsStore(join(base, 'store'), 'vfs:///store')
    const ballast = join(base, 'ballast')
    writeFileSync(ballast, Buffer.alloc(32 * MIB))
    const volume = new MemoryVolume(32 * MIB)
    volume.write(0, randomBytes(8 * MIB))
    const first = volume.snapshot('s1')
    await createBackup(first, store, {...options, backup: 'b1', snapshot: 's1'})
    volume.write(8 * MIB, randomBytes(24 * MIB))
    const second = volume.snapshot('s2')
    for (let attempt = 1; attempt <= 2; attempt++) {
      await t.rejects(createBackup(second, store, {...options, backup: 'b2', snapshot: 's2'}), {code: 'LH_NO_SPACE', message: /vfs:\/\/\/store: writing .*no space left/i})
      const keys = (await listed(store, 'backupstore/')).map(({key}) => key)
      t.same(keys.filter(key => key.endsWith('.cfg') && key.includes('/backups/')).map(key => key.replace(/.*\//, '')), ['backup_b1.cfg'], 'nothing half-done is listed')
      t.notOk(keys.some(key => key.includes('.tmp.') || key.endsWith('.lck')), 'nothing else is left')
    }
    t.match(await verifyBackups(store, {...options, sample: 1}), {backups: 1, unfinished: [], findings: []}, 'the backup before is whole')
    // A restore to the same place is refused in the same way, and leaves nothing.
    writeFileSync(`${ballast}-2`, '')
    await t.rejects(restoreToFile(store, join(base, 'restored'), {...options, backup: 'b1'}), {code: 'LH_NO_SPACE'})
    t.throws(() => readFileSync(join(base, 'restored')), {code: 'ENOENT'})

    rmSync(ballast)
    const there = (await listed(store, 'backupstore/')).filter(({key}) => key.endsWith('.blk')).length
    const {newBytes} = await createBackup(second, store, {...options, backup: 'b2', snapshot: 's2'})
    t.ok(newBytes < (16 - there + 1) * 2 * MIB, `${there} blocks are not stored again`)
    t.match(await verifyBackups(store, {...options, sample: 1}), {backups: 2, unfinished: [], findings: []})
    const file = join(t.testdir(), 'restored')
    await restoreToFile(store, file, {...options, backup: 'b2'})
    t.ok(second.image.equals(readFileSync(file)))
  })
}
