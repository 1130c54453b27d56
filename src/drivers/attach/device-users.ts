// Who uses a block device: what a person has to be told before it is taken away.
import {readdir, readFile, readlink} from 'node:fs/promises'
import type {BlockNode} from './attach-way.js'
import {sameDevice} from './block-node.js'
import {readMounts} from './mount-table.js'
import {programOf} from './process-identity.js'

export interface DeviceUser {
  /** `mount`: in our mount namespace. `elsewhere`: mounted in another one (a container's). `device`: swap, RAID, device mapper. */
  readonly kind: 'mount' | 'elsewhere' | 'device' | 'process'
  /** "mounted at /srv/data", "open in process 4711 (dd)". */
  readonly description: string
  /** For `mount` only. */
  readonly mountPoint?: string
}

/**
 * The users of a device that can be seen from here, mounts oldest first. `paths` are the names of its nodes.
 * Users inside the kernel (an exported target) and, without the host's /proc, those in other containers cannot be seen.
 */
export async function findUsers(node: BlockNode, paths: readonly string[]): Promise<DeviceUser[]> {
  return [...(await mountsHere(node, paths)), ...(await mountsElsewhere(node, paths)), ...(await stackedDevices(node)), ...(await openers(paths))]
}

async function mountsHere(node: BlockNode, paths: readonly string[]): Promise<DeviceUser[]> {
  return (await mountPoints('self', node, paths)).map(mountPoint => ({kind: 'mount', description: `mounted at ${mountPoint}`, mountPoint}))
}

/** One process is asked for each other mount namespace. */
async function mountsElsewhere(node: BlockNode, paths: readonly string[]): Promise<DeviceUser[]> {
  const seen = new Set([await namespaceOf('self')])
  const users: DeviceUser[] = []
  for (const pid of await processes()) {
    const namespace = await namespaceOf(pid)
    if (namespace === undefined || seen.has(namespace)) continue
    seen.add(namespace)
    for (const mountPoint of await mountPoints(pid, node, paths).catch(() => [])) {
      users.push({kind: 'elsewhere', description: `mounted at ${mountPoint} in the mount namespace of process ${pid} (${programOf(pid)})`})
    }
  }
  return users
}

async function mountPoints(pid: number | 'self', node: BlockNode, paths: readonly string[]): Promise<string[]> {
  const mounts = await readMounts(pid)
  // btrfs shows a device number of its own; there the name of the source has to do.
  return mounts.filter(mount => sameDevice(mount, node) || isOneOf(mount.source, paths)).map(({mountPoint}) => mountPoint)
}

async function stackedDevices(node: BlockNode): Promise<DeviceUser[]> {
  const holders = await readdir(`/sys/dev/block/${node.major}:${node.minor}/holders`).catch(() => [])
  const users: DeviceUser[] = holders.map(holder => ({kind: 'device', description: `part of ${holder}`}))
  const swaps = await readFile('/proc/swaps', 'utf8').catch(() => '')
  if (swaps.split('\n').some(line => line.startsWith(`/dev/${node.name} `))) users.push({kind: 'device', description: 'swap space'})
  return users
}

async function openers(paths: readonly string[]): Promise<DeviceUser[]> {
  const users: DeviceUser[] = []
  for (const pid of await processes()) {
    const folder = `/proc/${pid}/fd`
    for (const fd of await readdir(folder).catch(() => [])) {
      // Only the link is read: stat(2) on an open file can hang with its file system.
      const target = await readlink(`${folder}/${fd}`).catch(() => '')
      if (!isOneOf(target, paths)) continue
      users.push({kind: 'process', description: `open in process ${pid} (${programOf(pid)})`})
      break
    }
  }
  return users
}

/** A container may see the node below another root, and a node that was removed is shown with a remark. */
function isOneOf(path: string, paths: readonly string[]): boolean {
  const plain = path.replace(/ \(deleted\)$/, '')
  return paths.some(known => plain.endsWith(known))
}

async function processes(): Promise<number[]> {
  return (await readdir('/proc')).map(Number).filter(Number.isInteger)
}

async function namespaceOf(pid: number | 'self'): Promise<string | undefined> {
  return readlink(`/proc/${pid}/ns/mnt`).catch(() => undefined)
}
