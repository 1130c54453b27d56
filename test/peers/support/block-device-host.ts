// The part of this machine that block devices of volumes live in: mounts, loop devices, what an attachment leaves.
import {existsSync, readdirSync, readFileSync, readlinkSync} from 'node:fs'
import {mkdir, rm} from 'node:fs/promises'
import {join} from 'node:path'
import type {Test} from 'tap'
import {FuseWay} from '../../../src/drivers/attach/fuse/fuse-way.js'
import {until} from '../../support/until.js'
import {LiveVolume, tryLonghorn} from './live-volume.js'
import {attempt, missing, tool} from './tool.js'

const DEVICES = '/dev/longhorn'
const ATTACHMENTS = '/run/longhorn/attach'
const SOCKETS = '/run/longhorn/blockdev'
/** Of this test or of one that was killed: LiveVolume names its volumes so. */
const VOLUME_NAME = /^(peer-(\d+)-\d+)(\.sock)?$/

/** Why tests that need a block device and these programs cannot run here, else false. */
export async function withoutBlockDevices(...programs: readonly string[]): Promise<string | false> {
  const availability = await new FuseWay().available()
  return availability.ok ? missing('mount', 'umount', 'sync', ...programs) : availability.reason
}

/** A volume to be served as a block device. After the test nothing of it is left on this machine, whatever happened. */
export async function blockVolume(t: Test, sizeBytes: number, options: {replicas?: number; directories?: readonly string[]} = {}): Promise<LiveVolume> {
  await clearDeadTests()
  const volume = new LiveVolume(t, {sizeBytes, ...options})
  t.teardown(async () => {
    await volume.killAll()
    await clear(volume.name)
  })
  return volume
}

/** Mounts a device on a folder of its own in the volume's, and gives the folder. */
export async function mount(volume: LiveVolume, device: string): Promise<string> {
  const mountPoint = join(volume.folder, 'mnt')
  await mkdir(mountPoint, {recursive: true})
  await tool(['mount', device, mountPoint])
  return mountPoint
}

/** Not at once: what has just been closed there may still be on its way out. */
export async function unmount(mountPoint: string): Promise<void> {
  await until(async () => (await attempt(['umount', mountPoint])).code === 0, `${mountPoint} can be unmounted`)
}

/** What there is of a volume's device on this machine, one line each. */
export function tracesOf(volume: string): string[] {
  const files = [join(DEVICES, volume), join(ATTACHMENTS, 'volumes', volume), join(ATTACHMENTS, 'locks', volume)].filter(path => existsSync(path))
  const mounts = mountsOf(volume).map(({source, mountPoint}) => `mount of ${source} at ${mountPoint}`)
  const loops = readdirSync('/sys/block').filter(name => isOf(volume, read(`/sys/block/${name}/loop/backing_file`)))
  const processes = nbdfuseOf(volume).map(pid => `process ${pid}`)
  return [...files, ...mounts, ...loops, ...processes]
}

/** Takes away what is left of volumes whose test was killed. */
async function clearDeadTests(): Promise<void> {
  const folders = [join(ATTACHMENTS, 'volumes'), DEVICES, SOCKETS].filter(existsSync)
  for (const name of new Set(folders.flatMap(folder => readdirSync(folder)))) {
    const [, volume, pid] = VOLUME_NAME.exec(name) ?? []
    if (volume !== undefined && !existsSync(`/proc/${pid}`)) await clear(volume)
  }
}

/** First as a person would; what that leaves is taken away by hand. */
async function clear(volume: string): Promise<void> {
  await rm(join(SOCKETS, `${volume}.sock`), {force: true})
  if (tracesOf(volume).length === 0) return
  await tryLonghorn('volume', 'detach', volume, '--force').catch(() => undefined)
  for (const {mountPoint} of mountsOf(volume).toReversed()) await attempt(['umount', '--lazy', mountPoint], {timeoutMs: 5000}).catch(() => undefined)
  for (const pid of nbdfuseOf(volume)) process.kill(pid, 'SIGKILL')
  for (const trace of tracesOf(volume)) {
    if (/^loop\d+$/.test(trace)) await attempt(['losetup', '--detach', `/dev/${trace}`], {timeoutMs: 5000}).catch(() => undefined)
  }
}

/** Mounts of the device, and the one that its data comes from. */
function mountsOf(volume: string): {source: string; mountPoint: string}[] {
  const loops = readdirSync('/sys/block').filter(name => isOf(volume, read(`/sys/block/${name}/loop/backing_file`)))
  return readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .map(line => line.split(' '))
    .map(([source = '', mountPoint = '']) => ({source, mountPoint}))
    .filter(({source, mountPoint}) => isOf(volume, source) || isOf(volume, mountPoint) || loops.includes(source.replace('/dev/', '')))
}

function nbdfuseOf(volume: string): number[] {
  return readdirSync('/proc')
    .map(Number)
    .filter(pid => Number.isInteger(pid) && programOf(pid) === 'nbdfuse' && isOf(volume, read(`/proc/${pid}/cmdline`).replaceAll('\0', ' ')))
}

/** True when the name stands in the text by itself: peer-1-2 is not in peer-1-23. */
function isOf(volume: string, text: string): boolean {
  return new RegExp(`(^|[^\\w-])${volume}($|[^\\w-])`, 'm').test(text)
}

function programOf(pid: number): string {
  try {
    return readlinkSync(`/proc/${pid}/exe`).split('/').at(-1) ?? ''
  } catch {
    return ''
  }
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}
