import {execFile} from 'node:child_process'
import {mkdir, readFile} from 'node:fs/promises'
import {join} from 'node:path'
import {promisify} from 'node:util'
import {errnoOf, LonghornError} from '../../lib/errors.js'
import type {TargetUrl} from '../target-url.js'
import {mountOptions, nfsLocation} from './nfs-options.js'

/** Upstream's: what it has mounted there is used, and its `backup cleanup-all-mounts` takes ours away. */
const MOUNTS = '/var/lib/longhorn-backupstore-mounts'
/** Upstream's, tried in this order unless the URL has options: versions it begins with, and bounded waits. */
const VERSIONS = ['4.2', '4.1', '4.0']
const DEFAULTS = 'actimeo=1,soft,timeo=300,retry=2'
const MOUNT_TIMEOUT_MS = 60_000

const run = promisify(execFile)

/**
 * Mounts the export of an `nfs://` target with the kernel's client, unless it is mounted, and gives the path. It stays mounted, as with upstream. UNSUPPORTED where this process may not mount or mount.nfs is missing;
 * TIMEOUT; UNREACHABLE with what mount says.
 */
export async function mountNfs(url: TargetUrl, mounts = MOUNTS): Promise<string> {
  const {host, path} = nfsLocation(url)
  const point = join(mounts, host.replaceAll('.', '_'), path)
  const found = await mountedAt(point)
  if (found !== undefined) {
    if (found.startsWith('nfs')) return point
    throw new LonghornError('CONFLICT', `${url.target}: ${point} is a mount of type ${found}: unmount it first`)
  }
  await mkdir(point, {recursive: true, mode: 0o700}).catch((error: unknown) => {
    throw new LonghornError('UNSUPPORTED', `${url.target}: nfsClient=kernel: ${point} cannot be made (${errnoOf(error)}): mounting needs root, and CAP_SYS_ADMIN in a container; leave nfsClient out to do without a mount`, {}, {cause: error})
  })
  const own = mountOptions(url)
  const attempts = own.length > 0 ? [own.join(',')] : VERSIONS.map(version => `nfsvers=${version},${DEFAULTS}`)
  const source = `${host.includes(':') ? `[${host}]` : host}:${path}`
  let failure: unknown
  for (const options of attempts) {
    try {
      await run('mount', ['-t', 'nfs4', '-o', options, source, point], {timeout: MOUNT_TIMEOUT_MS, killSignal: 'SIGKILL', env: {...process.env, LC_ALL: 'C'}})
      return point
    } catch (error) {
      failure = error
      // Trying other versions does not help.
      if (isFinal(error)) break
    }
  }
  throw mountFailure(url.target, failure)
}

/** The type of the file system that is mounted at a path; undefined for none. Not asked of the file system, which may hang. */
async function mountedAt(point: string): Promise<string | undefined> {
  let type: string | undefined
  for (const line of (await readFile('/proc/self/mountinfo', 'utf8')).split('\n')) {
    const [before = '', after = ''] = line.split(' - ')
    const at = before.split(' ')[4]?.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)))
    // The last one of several lies on top.
    if (at === point) type = after.split(' ')[0]
  }
  return type
}

function isFinal(error: unknown): boolean {
  return errnoOf(error) === 'ENOENT' || (error as {killed?: boolean}).killed === true || /only root|permission denied|unknown filesystem|bad option|No such device/i.test(said(error))
}

function mountFailure(target: string, error: unknown): LonghornError {
  const without = 'leave nfsClient out to do without a mount'
  if (errnoOf(error) === 'ENOENT') return new LonghornError('UNSUPPORTED', `${target}: nfsClient=kernel: there is no program "mount": ${without}`, {}, {cause: error})
  if ((error as {killed?: boolean}).killed === true) return new LonghornError('TIMEOUT', `${target}: mount did not end within ${MOUNT_TIMEOUT_MS / 1000} s`, {}, {cause: error})
  const text = said(error)
  if (/only root|not permitted|permission denied|must be superuser/i.test(text)) return new LonghornError('UNSUPPORTED', `${target}: nfsClient=kernel: mounting was refused (${text}): it needs root, and CAP_SYS_ADMIN in a container; ${without}`, {}, {cause: error})
  if (/unknown filesystem|No such device|bad option|helper program/i.test(text)) return new LonghornError('UNSUPPORTED', `${target}: nfsClient=kernel: this machine cannot mount NFS (${text}): install nfs-common, and have the kernel's nfs module; ${without}`, {}, {cause: error})
  return new LonghornError('UNREACHABLE', `${target}: mount failed: ${text}`, {}, {cause: error})
}

function said(error: unknown): string {
  const {stderr = ''} = error as {stderr?: string}
  return stderr.trim().replace(/\s*\n\s*/g, '; ') || String(error)
}
