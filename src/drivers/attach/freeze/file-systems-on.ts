// Which file systems are mounted from a block device, from its partitions, or from what is stacked on those (dm-crypt, LVM).
import {readdir, readlink} from 'node:fs/promises'
import {join} from 'node:path'
import type {BlockNode} from '../attach-way.js'
import {readLine, sameDevice, type DeviceNumber} from '../block-node.js'
import {readMounts} from '../mount-table.js'

export interface MountedFileSystem extends DeviceNumber {
  /** From here; through /proc when it is mounted in another mount namespace only. */
  readonly path: string
  readonly fileSystem: string
}

/** Each of them once, however often it is mounted. Touches none. */
export async function fileSystemsOn(node: BlockNode): Promise<MountedFileSystem[]> {
  const devices = await devicesOn(node.name)
  const found = new Map<string, MountedFileSystem>()
  const seen = new Set<string>()
  for (const pid of ['self', ...(await processes())]) {
    const namespace = await readlink(`/proc/${pid}/ns/mnt`).catch(() => undefined)
    if (namespace === undefined || seen.has(namespace)) continue
    seen.add(namespace)
    for (const {major, minor, mountPoint, fileSystem} of await readMounts(pid === 'self' ? pid : Number(pid)).catch(() => [])) {
      const key = `${major}:${minor}`
      if (found.has(key) || !devices.some(device => sameDevice(device, {major, minor}))) continue
      found.set(key, {major, minor, fileSystem, path: pid === 'self' ? mountPoint : join(`/proc/${pid}/root`, mountPoint)})
    }
  }
  return [...found.values()]
}

/** The device itself, its partitions, and whatever has one of these below it. */
async function devicesOn(name: string): Promise<DeviceNumber[]> {
  const folder = `/sys/class/block/${name}`
  const own = parse(await readLine(join(folder, 'dev')))
  const entries = await readdir(folder).catch(() => [])
  const partitions = entries.filter(entry => entry.startsWith(name))
  const holders = await readdir(join(folder, 'holders')).catch(() => [])
  const above = await Promise.all([...partitions, ...holders].map(devicesOn))
  return [...(own === undefined ? [] : [own]), ...above.flat()]
}

function parse(text: string | undefined): DeviceNumber | undefined {
  const [major = NaN, minor = NaN] = (text ?? '').split(':').map(Number)
  return Number.isInteger(major) && Number.isInteger(minor) ? {major, minor} : undefined
}

async function processes(): Promise<string[]> {
  return (await readdir('/proc')).filter(name => /^\d+$/.test(name))
}
