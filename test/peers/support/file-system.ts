import {createHash, randomBytes} from 'node:crypto'
import {mkdir, open, readFile, writeFile} from 'node:fs/promises'
import {dirname, join} from 'node:path'

export interface FileSystem {
  readonly make: readonly [string, ...string[]]
  /** Ends with an error when anything is wrong; changes nothing. */
  readonly check: readonly [string, ...string[]]
  readonly leastBytes: number
}

const MIB = 1024 * 1024

export const FILE_SYSTEMS: Readonly<Record<string, FileSystem>> = {
  ext4: {make: ['mkfs.ext4', '-q'], check: ['e2fsck', '-fn'], leastBytes: 128 * MIB},
  xfs: {make: ['mkfs.xfs', '-q'], check: ['xfs_repair', '-n'], leastBytes: 320 * MIB},
}

/** SHA-256 of files by their path below some folder. */
export type Sums = Readonly<Record<string, string>>

/** Writes files of all sizes below `folder`, each synced, `bytes` in all or a little less. */
export async function fill(folder: string, bytes: number): Promise<Sums> {
  const sums: Record<string, string> = {}
  let left = bytes
  for (let number = 0, size = 1; left >= size; number++) {
    const path = join(`d${number % 7}`, `f${number}`)
    const content = randomBytes(size)
    await mkdir(dirname(join(folder, path)), {recursive: true})
    await writeSynced(join(folder, path), content)
    sums[path] = sumOf(content)
    left -= size
    size = size > 4 * MIB ? 1 + (number % 100) * 97 : size * 3
  }
  return sums
}

/** The sums that these files have now; of one that is not there, why. */
export async function sumsNow(folder: string, expected: Sums): Promise<Sums> {
  const sums: Record<string, string> = {}
  for (const path of Object.keys(expected)) {
    sums[path] = await readFile(join(folder, path)).then(sumOf, (error: unknown) => String(error))
  }
  return sums
}

export async function writeSynced(path: string, content: Buffer): Promise<void> {
  await writeFile(path, content)
  await using file = await open(path, 'r+')
  await file.sync()
}

function sumOf(content: Buffer): string {
  return createHash('sha256').update(content).digest('hex')
}
