// A file system on a disk that returns errors: disk-server.ts, which nbdfuse shows as a file, on a loop device.
import {spawn, type ChildProcessWithoutNullStreams} from 'node:child_process'
import {closeSync, existsSync, fdatasyncSync, fstatSync, openSync, readdirSync} from 'node:fs'
import {mkdir, writeFile} from 'node:fs/promises'
import {basename, join} from 'node:path'
import {createInterface, type Interface} from 'node:readline'
import {fileURLToPath} from 'node:url'
import {setTimeout as sleep} from 'node:timers/promises'
import type {Test} from 'tap'
import {forgetCached} from '../../../src/lib/sys/page-cache.js'
import {until} from '../../support/until.js'
import {LEASH} from './daemon.js'
import type {DiskFaults} from './disk-server.js'
import {attempt, missing, tool} from './tool.js'

const MIB = 1024 * 1024
const SERVER = fileURLToPath(new URL('disk-server.js', import.meta.url))
const KINDS = {
  // In blocks as those of the disk, which else it would not choose for one that is so small.
  ext4: {make: ['mkfs.ext4', '-q', '-F', '-b', '4096'], bytes: 256 * MIB, options: 'rw'},
  xfs: {make: ['mkfs.xfs', '-q', '-f'], bytes: 320 * MIB, options: 'nouuid'},
} as const

/** Why there can be no such disks here, else false. */
export async function withoutFailingDisks(): Promise<string | false> {
  if (process.geteuid?.() !== 0) return 'mounting needs root'
  for (const path of ['/dev/loop-control', '/dev/fuse']) if (!existsSync(path)) return `there is no ${path}`
  return missing('mount', 'nbdfuse', 'filefrag', 'mkfs.ext4', 'mkfs.xfs')
}

export class FailingDisk {
  /** Where it is mounted. */
  readonly path: string
  readonly #folder: string
  readonly #kind: keyof typeof KINDS
  #server: ChildProcessWithoutNullStreams | undefined
  #answers: Interface | undefined
  #loop = ''
  #complaints = ''

  private constructor(folder: string, kind: keyof typeof KINDS) {
    this.#folder = join(folder, `disk-${kind}`)
    this.#kind = kind
    this.path = join(this.#folder, 'mnt')
  }

  /** Everything of it is gone after the test. What uses it is to be ended before: register that later than this. */
  static async make(t: Test, folder: string, kind: keyof typeof KINDS): Promise<FailingDisk> {
    const disk = new FailingDisk(folder, kind)
    await mkdir(disk.path, {recursive: true})
    await writeFile(disk.#file, '')
    t.teardown(() => disk.#remove())
    await disk.#serve()
    await disk.#bind()
    await tool([...KINDS[kind].make, disk.#loop])
    await disk.#mount()
    return disk
  }

  /** What fails from now on. Gives how many blocks are bad. */
  fail(faults: DiskFaults): Promise<number> {
    return this.#tell(faults)
  }

  /** Makes these blocks of a file unreadable until they are written, on the disk that they lie on. Bytes, whole blocks. */
  async damage(file: string, offset: number, length: number): Promise<void> {
    this.forget(file)
    const ranges = physical(await tool(['filefrag', '-v', '-b4096', '-s', file]), offset / 4096, length / 4096)
    await this.#tell({badRanges: ranges.map(([first, count]) => [first * 4096, count * 4096] as const)})
  }

  /** Has the kernel read these files, or all in a folder, from the disk again. */
  forget(path: string): void {
    const files = existsSync(join(path, 'volume.meta')) ? readdirSync(path).filter(name => name.endsWith('.img')).map(name => join(path, name)) : [path]
    for (const file of files) {
      const fd = openSync(file, 'r')
      try {
        fdatasyncSync(fd)
        forgetCached(fd, 0, fstatSync(fd).size)
      } finally {
        closeSync(fd)
      }
    }
  }

  /** Another cable, and a mount anew. Nobody may use it at this moment. */
  async mend(): Promise<void> {
    await this.#tell({})
    await until(async () => (await attempt(['umount', this.path])).code === 0, `${this.path} can be unmounted`, 60_000)
    // Where another mount namespace still has it, the next mount would be of the same file system, with its errors.
    await until(() => !existsSync(`/sys/fs/${this.#kind}/${basename(this.#loop)}`), 'it is mounted nowhere else', 120_000)
    await this.#mount()
  }

  get #file(): string {
    return join(this.#folder, 'disk')
  }

  async #serve(): Promise<void> {
    const socket = join(this.#folder, 's')
    const bytes = KINDS[this.#kind].bytes
    const [program = '', ...args] = [...LEASH, process.execPath, SERVER, socket, `${bytes}`]
    this.#server = spawn(program, args, {stdio: ['pipe', 'pipe', 'pipe']})
    this.#server.stderr.setEncoding('utf8').on('data', (text: string) => (this.#complaints += text))
    this.#answers = createInterface({input: this.#server.stdout})
    await this.#answer()
    const pidFile = join(this.#folder, 'pid')
    const [fuse = '', ...fuseArgs] = [...LEASH, 'nbdfuse', '--pidfile', pidFile, this.#file, `nbd+unix:///disk?socket=${socket}`]
    // It complains about every error that this is made for.
    const mounted = spawn(fuse, fuseArgs, {stdio: 'ignore'})
    await until(() => existsSync(pidFile) || mounted.exitCode !== null, 'nbdfuse has mounted', 60_000)
    if (mounted.exitCode !== null) throw new Error(`nbdfuse ended with ${mounted.exitCode}`)
  }

  async #tell(faults: DiskFaults): Promise<number> {
    const answer = this.#answer()
    this.#server!.stdin.write(`${JSON.stringify(faults)}\n`)
    return Number(await answer)
  }

  #answer(): Promise<string> {
    return new Promise((resolve, reject) => {
      const ended = (code: number | null): void => reject(new Error(`the disk server ended with ${code}: ${this.#complaints}`))
      this.#server!.once('exit', ended)
      this.#answers!.once('line', line => {
        this.#server!.off('exit', ended)
        resolve(line)
      })
    })
  }

  async #bind(): Promise<void> {
    this.#loop = (await tool(['losetup', '--direct-io=on', '--find', '--show', this.#file])).trim()
  }

  async #mount(): Promise<void> {
    await tool(['mount', '-o', KINDS[this.#kind].options, this.#loop, this.path])
  }

  async #remove(): Promise<void> {
    if (this.#server?.exitCode === null) await this.#tell({}).catch(() => undefined)
    await attempt(['umount', '--lazy', this.path])
    await attempt(['losetup', '--detach', this.#loop])
    for (let tries = 0; tries < 100 && (await attempt(['umount', this.#file])).code !== 0; tries++) await sleep(50)
    await attempt(['umount', '--lazy', this.#file])
    this.#server?.stdin.end()
  }
}

/** Which blocks of the disk hold blocks [first, first + count) of a file, by filefrag's table. */
function physical(table: string, first: number, count: number): [first: number, count: number][] {
  const found: [number, number][] = []
  for (const [, from, to, at] of table.matchAll(/^ *\d+: +(\d+)\.\. *(\d+): +(\d+)\.\. *\d+:/gm)) {
    const start = Math.max(first, Number(from))
    const end = Math.min(first + count, Number(to) + 1)
    if (start < end) found.push([Number(at) + start - Number(from), end - start])
  }
  if (found.length === 0) throw new Error(`the file holds nothing at block ${first}:\n${table}`)
  return found
}
