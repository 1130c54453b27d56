// A backup of a volume, another one after a hundredth of it was written, and a restore to a file, beside restic with the same image and the same place.
// They take turns. Then what it costs in requests to list many backups and to remove one, and the memory of a replica that backs up a large volume.
//
//   npm run bench -- backup [--store vfs|s3] [--size 1g] [--rounds 3] [--only speed|requests|memory] [--profile DIR]
//
// Ours waits two seconds for each lock in the store, as upstream does; restic has no such wait. Figures of backups are with and without it; a restore reads meanwhile.
import {mkdtemp, rm, truncate} from 'node:fs/promises'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {parseArgs} from 'node:util'
import {execa} from 'execa'
import {formatTable} from '../src/cli/table.js'
import {parseSize} from '../src/lib/sizes.js'
import {Minio, minioProgram} from '../test/peers/support/minio.js'
import {changeImage, writeImage} from './support/backup-image.js'
import {countRequests} from './support/backup-requests.js'
import {BackupRig} from './support/backup-rig.js'
import {median} from './support/median.js'
import {Restic} from './support/restic.js'

/** Of one lock: written, then judged. */
const LOCK_SECONDS = 2
const GIB = 1024 ** 3

const {values} = parseArgs({
  options: {
    store: {type: 'string', default: 'vfs'},
    size: {type: 'string', default: '1g'},
    rounds: {type: 'string', default: '3'},
    only: {type: 'string'},
    profile: {type: 'string'},
  },
})
const sizeBytes = parseSize(values.size)
const nodeFlags = values.profile === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${values.profile}`]

interface Place {
  /** URLs of a place that has not been used. */
  readonly ours: string
  readonly restic: string
}

/** Where backups go: a directory, or a MinIO of this machine. */
async function openPlace(directory: string): Promise<{next: () => Place; env: Record<string, string>; close: () => Promise<void>}> {
  let places = 0
  if (values.store === 'vfs') {
    const next = (): Place => ({ours: `vfs://${directory}/ours-${++places}`, restic: `${directory}/restic-${places}`})
    return {next, env: {}, close: async () => undefined}
  }
  const program = await minioProgram()
  if ('missing' in program) throw new Error(program.missing)
  const minio = await Minio.start(program.path, directory)
  const next = (): Place => ({ours: `s3://backups@us-east-1/ours-${++places}`, restic: `s3:${minio.endpoint}/backups/restic-${places}`})
  return {next, env: minio.env, close: () => minio.kill()}
}

async function speed(directory: string): Promise<string> {
  const missing = await Restic.missing()
  if (missing !== undefined) console.error(missing)
  const place = await openPlace(directory)
  const image = join(directory, 'image')
  await writeImage(image, sizeBytes)
  const rig = new BackupRig(directory, sizeBytes, place.env, nodeFlags)
  const times = new Map<string, number[]>()
  const note = (name: string, seconds: number): void => void times.set(name, [...(times.get(name) ?? []), seconds])
  const timed = async (name: string, work: () => Promise<void>): Promise<void> => {
    const before = performance.now()
    await work()
    note(name, (performance.now() - before) / 1000)
  }
  let peakMiB = 0
  try {
    await rig.start()
    await rig.fill(image)
    for (let round = 0; round < Number(values.rounds); round++) {
      const {ours, restic: repository} = place.next()
      await rig.stop()
      await rig.start()
      const first = await rig.backup(ours)
      note('ours first', first.command)
      note('ours first transfer', first.transfer)
      await changeImage(image, sizeBytes, round * 2 + 1)
      await rig.fillFirst(image, Math.floor(sizeBytes / 100))
      const second = await rig.backup(ours)
      note('ours second', second.command)
      note('ours second transfer', second.transfer)
      peakMiB = Math.max(peakMiB, second.peakMiB)
      const restored = join(directory, 'restored')
      note('ours restore', await rig.restore(ours, second.backup, restored))
      await execa('cmp', [image, restored])
      await rm(restored)
      if (missing === undefined) {
        const restic = new Restic(repository, join(directory, `cache-${round}`), place.env)
        await restic.init()
        await execa('sync', ['--file-system', directory])
        await timed('restic first', () => restic.backup(image))
        await changeImage(image, sizeBytes, round * 2 + 2)
        await execa('sync', ['--file-system', directory])
        await timed('restic second', () => restic.backup(image))
        await timed('restic restore', () => restic.restore(restored))
        // Ours is on the disk when the command ends.
        const written = times.get('restic restore')!.at(-1)!
        await timed('sync', async () => void (await execa('sync', ['--file-system', restored])))
        note('restic restore synced', written + times.get('sync')!.at(-1)!)
        await rm(restored, {recursive: true})
        await rig.fillFirst(image, Math.floor(sizeBytes / 100))
      }
      for (const path of [`ours-${round + 1}`, `restic-${round + 1}`]) await rm(join(directory, values.store === 'vfs' ? path : `data/backups/${path}`), {recursive: true, force: true})
    }
  } finally {
    await rig.stop()
    await place.close()
  }
  const of = (name: string): number => median(times.get(name) ?? [])
  const row = (what: string, ours: number, restic: number, aim: string): Row => ({
    what,
    ours: `${ours.toFixed(2)} s`,
    rate: `${(sizeBytes / 1e6 / ours).toFixed(0)} MB/s`,
    restic: `${restic.toFixed(2)} s`,
    ratio: (restic / ours).toFixed(2),
    aim,
  })
  const rows = [
    row('first backup, the command', of('ours first'), of('restic first'), ''),
    row('first backup, without the locks', of('ours first') - LOCK_SECONDS, of('restic first'), '>= 1.5'),
    row('first backup, what the replica does', of('ours first transfer'), of('restic first'), ''),
    row('1 % changed, the command', of('ours second'), of('restic second'), ''),
    row('1 % changed, what the replica does', of('ours second transfer'), of('restic second'), ''),
    row('restore to a file, the command', of('ours restore'), of('restic restore'), ''),
    row('the same, restic with a sync', of('ours restore'), of('restic restore synced'), '>= 1'),
  ]
  return `${tableOf(rows)}

1 % changed, in the replica, beside the first backup: ${((100 * of('ours second transfer')) / of('ours first transfer')).toFixed(1)} % (aim: below 3 %); restic ${((100 * of('restic second')) / of('restic first')).toFixed(0)} %
peak memory of the replica: ${peakMiB.toFixed(0)} MiB`
}

interface Row {
  readonly what: string
  readonly ours: string
  readonly rate: string
  readonly restic: string
  readonly ratio: string
  readonly aim: string
}

function tableOf(rows: readonly Row[]): string {
  return formatTable<Row>(
    [
      {header: `${values.store}, ${values.size}`, value: row => row.what},
      {header: 'ours', align: 'right', value: row => row.ours},
      {header: 'of volume', align: 'right', value: row => row.rate},
      {header: 'restic', align: 'right', value: row => row.restic},
      {header: 'ratio', align: 'right', value: row => row.ratio},
      {header: 'aim', align: 'right', value: row => row.aim},
    ],
    rows,
  )
}

/** A volume of 10 GiB in which 1 GiB was written, all over it. */
async function memory(directory: string): Promise<string> {
  const place = await openPlace(directory)
  const rig = new BackupRig(directory, 10 * GIB, place.env, nodeFlags)
  const image = join(directory, 'image')
  try {
    await writeImage(image, GIB)
    await truncate(image, 10 * GIB)
    await rig.start()
    await rig.fill(image)
    const rows: string[] = []
    for (const [blocks, workers] of [['2', '5'], ['2', '64'], ['16', '64']] as const) {
      await rig.stop()
      await rig.start()
      const idle = rig.peakMiB()
      const {peakMiB} = await rig.backup(place.next().ours, ['--block-size', blocks, '--concurrency', workers])
      rows.push(`peak memory of the replica, 10 GiB with 1 GiB in it, blocks of ${blocks} MiB, --concurrency ${workers}: ${peakMiB.toFixed(0)} MiB (idle ${idle.toFixed(0)}; aim: below 200)`)
    }
    return rows.join('\n')
  } finally {
    await rig.stop()
    await place.close()
  }
}

const parts: Record<string, (directory: string) => Promise<string>> = {speed, requests: countRequests, memory}
for (const [name, part] of Object.entries(parts)) {
  if (values.only !== undefined && values.only !== name) continue
  const directory = await mkdtemp(join(tmpdir(), 'longhorn-backup-'))
  try {
    console.log(`${await part(directory)}\n`)
  } finally {
    await rm(directory, {recursive: true, force: true})
  }
}
