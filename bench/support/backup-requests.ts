import {randomBytes} from 'node:crypto'
import {join} from 'node:path'
import {findBackup, listBackups} from '../../src/backup/catalog.js'
import {createBackup} from '../../src/backup/create.js'
import {removeBackups} from '../../src/backup/remove.js'
import {VfsStore} from '../../src/backup/store/vfs.js'
import {FaultyStore} from '../../test/backup/faulty-store.js'
import {MemoryVolume} from '../../test/backup/memory-volume.js'

const BACKUPS = 1000
const BLOCK = 2 * 1024 ** 2
const SETTLE_MS = 10

/** What it costs to list many backups of a volume and to remove one of them, in requests to the store. */
export async function countRequests(directory: string): Promise<string> {
  const store = new FaultyStore(new VfsStore(join(directory, 'store'), 'vfs:///store'))
  const volume = new MemoryVolume(4 * BLOCK)
  for (let index = 0; index < BACKUPS; index++) {
    volume.write((index % 4) * BLOCK, randomBytes(8))
    const name = `backup-${index}`
    await createBackup(volume.snapshot(name), store, {volume: 'vol', backup: name, snapshot: name, concurrency: 4, settleMs: SETTLE_MS})
    volume.purge(name)
  }
  const counted = async (what: string, work: () => Promise<unknown>): Promise<string> => {
    const before = {...store.calls}
    await work()
    const counts = Object.entries(store.calls).map(([call, count]) => [call, count - before[call as keyof typeof before]] as const)
    return `${what}: ${counts.reduce((sum, [, count]) => sum + count, 0)} requests (${counts.filter(([, count]) => count > 0).map(([call, count]) => `${count} ${call}`).join(', ')})`
  }
  return [
    await counted(`names of ${BACKUPS} backups`, () => listBackups(store, 'vol')),
    await counted(`the same with their records, as backup ls shows them`, async () => {
      for (const name of await listBackups(store, 'vol')) await findBackup(store, 'vol', name)
    }),
    await counted(`removing one of ${BACKUPS} backups`, () => removeBackups(store, {volume: 'vol', backups: ['backup-500'], settleMs: SETTLE_MS})),
  ].join('\n')
}
