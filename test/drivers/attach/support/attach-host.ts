// A corner of this machine for attaching: its own directories, which tell what belongs to this test and what does not.
import {existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync} from 'node:fs'
import {mkdir} from 'node:fs/promises'
import {tmpdir} from 'node:os'
import {basename, join} from 'node:path'
import {setTimeout as sleep} from 'node:timers/promises'
import type {Test} from 'tap'
import type {AttachRequest, AttachWay} from '../../../../src/drivers/attach/attach-way.js'
import {Attacher, type AttachedDevice} from '../../../../src/drivers/attach/attacher.js'
import {readMounts} from '../../../../src/drivers/attach/mount-table.js'
import {isInstalled, runCommand, tryCommand} from '../../../../src/drivers/attach/run-command.js'
import {Nbdkit, type NbdkitOptions} from './nbdkit.js'

const PREFIX = 'longhorn-attach-'
const COMMAND_TIMEOUT_MS = 60_000
const MIB = 1024 * 1024

/** For a shell in a mount namespace of its own: gives up its copies of what tests have mounted, which these could not get rid of else. */
export const FORGET_MOUNTS_OF_TESTS =
  `mounts=$(cat /proc/mounts) && echo "$mounts" | while read -r _ path _; do case $path in ${tmpdir()}/*|/run/longhorn/*) umount -l "$path" 2>/dev/null || true;; esac; done`

export class AttachHost {
  readonly root: string
  readonly stateDirectory: string
  readonly deviceDirectory: string
  readonly attacher: Attacher
  readonly #servers: Nbdkit[] = []
  /** Names start with this, so that loop devices can be told apart even when nothing else is left of an attachment. */
  readonly #unique: string

  private constructor(root: string, ways: readonly AttachWay[]) {
    this.root = root
    this.#unique = basename(root).slice(PREFIX.length)
    this.stateDirectory = join(root, 'run')
    this.deviceDirectory = join(root, 'dev')
    mkdirSync(this.stateDirectory)
    this.attacher = this.attacherOf(ways)
  }

  /** With a last resort at the end of the test: whatever happens in it, nothing stays behind on this machine. */
  static async open(t: Test, ways: readonly AttachWay[]): Promise<AttachHost> {
    for (const name of readdirSync(tmpdir())) {
      // Of a test that was killed before it could clean up.
      const [, pid] = /^longhorn-attach-(\d+)-/.exec(name) ?? []
      if (pid !== undefined && !existsSync(`/proc/${pid}`)) await removeEverything(join(tmpdir(), name))
    }
    const host = new AttachHost(mkdtempSync(join(tmpdir(), `${PREFIX}${process.pid}-`)), ways)
    t.teardown(() => host.close())
    return host
  }

  attacherOf(ways: readonly AttachWay[]): Attacher {
    const {stateDirectory, deviceDirectory} = this
    return new Attacher(ways, {stateDirectory, deviceDirectory})
  }

  volume(label: string): string {
    return `${this.#unique}-${label}`
  }

  async serve(label: string, options: Partial<NbdkitOptions> = {}): Promise<Nbdkit> {
    const server = await Nbdkit.start(this.root, label, {sizeBytes: 64 * MIB, ...options})
    this.#servers.push(server)
    return server
  }

  /** Attaches volume `label` from a server. */
  async attach(label: string, server: Nbdkit, more: Partial<AttachRequest> = {}): Promise<AttachedDevice> {
    return this.attacher.attach({volume: this.volume(label), endpoint: server.endpoint, trim: 'reads-zeros', ...more}, soon())
  }

  async detach(label: string, force = false): ReturnType<Attacher['detach']> {
    return this.attacher.detach(this.volume(label), {force}, soon())
  }

  async mount(device: string, name = 'fs', ...options: string[]): Promise<string> {
    const mountPoint = join(this.root, name)
    await mkdir(mountPoint, {recursive: true})
    await this.run('mount', ...options, device, mountPoint)
    return mountPoint
  }

  async run(command: string, ...args: string[]): Promise<string> {
    return runCommand(command, args, {timeoutMs: COMMAND_TIMEOUT_MS})
  }

  /** What the attacher has left on this machine, one line each. Waits a moment for what is just going. */
  async leftovers(): Promise<string[]> {
    for (let tries = 100; ; tries--) {
      const found = await this.present()
      if (found.length === 0 || tries === 0) return found
      await sleep(20)
    }
  }

  async close(): Promise<void> {
    for (const server of this.#servers) {
      server.resume()
      await server.kill()
    }
    await removeEverything(this.root)
  }

  /** What there is of all attachments now, one line each. */
  async present(): Promise<string[]> {
    const folders = [join(this.stateDirectory, 'volumes'), join(this.stateDirectory, 'locks'), this.deviceDirectory]
    const files = folders.flatMap(folder => (existsSync(folder) ? readdirSync(folder).map(name => join(folder, name)) : []))
    const mounts = (await readMounts()).filter(({mountPoint}) => mountPoint.startsWith(this.stateDirectory)).map(({mountPoint}) => `mount ${mountPoint}`)
    const loops = loopsOf(this.#unique).map(({name, file}) => `${name} of ${file}`)
    const nbds = nbdsOf(this.#unique).map(({name, backend}) => `${name} of ${backend}`)
    const processes = processesOf(this.stateDirectory).map(({pid, command}) => `process ${pid}: ${command}`)
    return [...files, ...mounts, ...loops, ...nbds, ...processes]
  }
}

/** Tests must not wait for ever. */
export function soon(): AbortSignal {
  return AbortSignal.timeout(60_000)
}

/** Why tests that need these programs, and root, cannot run; undefined if they can. */
export async function missing(way: AttachWay, ...programs: string[]): Promise<string | undefined> {
  const availability = await way.available()
  if (!availability.ok) return availability.reason
  for (const program of ['nbdkit', 'mount', ...programs]) {
    if (!(await isInstalled(program))) return `${program} is not installed`
  }
  return undefined
}

/** Kills, unmounts and releases what is below `root`, without asking anything that could hang, and removes it. */
async function removeEverything(root: string): Promise<void> {
  for (const {pid} of processesOf(root)) process.kill(pid, 'SIGKILL')
  for (const {mountPoint} of (await readMounts()).toReversed()) {
    if (mountPoint.startsWith(`${root}/`)) await tryCommand('umount', ['--lazy', '--no-canonicalize', mountPoint], {timeoutMs: 5000})
  }
  for (const {name} of loopsOf(basename(root).slice(PREFIX.length))) await tryCommand('losetup', ['--detach', `/dev/${name}`], {timeoutMs: 5000})
  rmSync(root, {recursive: true, force: true})
}

function loopsOf(unique: string): {name: string; file: string}[] {
  return readdirSync('/sys/block').flatMap(name => {
    const file = read(`/sys/block/${name}/loop/backing_file`).trim()
    return file.includes(unique) ? [{name, file}] : []
  })
}

function nbdsOf(unique: string): {name: string; backend: string}[] {
  return readdirSync('/sys/block').flatMap(name => {
    const backend = read(`/sys/block/${name}/backend`).trim()
    return backend.includes(unique) ? [{name, backend}] : []
  })
}

/** Processes with this path in their arguments, but for this one. */
export function processesOf(path: string): {pid: number; command: string}[] {
  return readdirSync('/proc')
    .map(Number)
    .filter(pid => Number.isInteger(pid) && pid !== process.pid)
    .map(pid => ({pid, command: read(`/proc/${pid}/cmdline`).replaceAll('\0', ' ').trim()}))
    .filter(({command}) => command.includes(path))
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}

/** The first bytes of a device or file, past the caches of this machine. */
export async function readStart(path: string): Promise<string> {
  return (await runCommand('dd', [`if=${path}`, 'bs=512', 'count=1', 'iflag=direct', 'status=none'], {timeoutMs: COMMAND_TIMEOUT_MS})).replaceAll('\0', '')
}
