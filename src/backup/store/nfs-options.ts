import {LonghornError} from '../../lib/errors.js'
import type {NfsTarget} from '../../lib/nfs/nfs-connection.js'
import type {TargetUrl} from '../target-url.js'

/** Who speaks NFS: this program, or the kernel after a mount. */
export type NfsClient = 'user' | 'kernel'

/** Without `timeo`; upstream's default, too. */
const TIMEOUT_MS = 30_000
const MAX_TIMEOUT_MS = 600_000

/** Options of mount.nfs that mean nothing to a client without caches, of its own sizes, that waits a bounded time anyway (nfs(5)). */
const WITHOUT_EFFECT = new Set(
  'actimeo acregmin acregmax acdirmin acdirmax ac noac lookupcache soft softerr softreval hard retrans retry rsize wsize bsize intr nointr fg bg rw lock nolock local_lock cto nocto sharecache nosharecache resvport rdirplus nordirplus nconnect max_connect clientaddr addr atime noatime diratime nodiratime relatime norelatime strictatime nodev nosuid noexec sync async _netdev defaults fsc nofsc migration nomigration posix noacl acl'.split(' '),
)

interface Settings {
  version: 3 | 4
  port: number | undefined
  mountPort: number | undefined
  timeoutMs: number
}

/** What mount.nfs calls the options of a target, as upstream takes them: `?nfsOptions=a,b=c`, also repeated. Empty for none. */
export function mountOptions({options}: TargetUrl): string[] {
  return options.getAll('nfsOptions').flatMap(text => text.split(',')).map(text => text.trim()).filter(text => text !== '')
}

/** `nfsClient` of the URL, or LONGHORN_NFS_CLIENT; `user` when neither says anything. USAGE for another word. */
export function nfsClient(url: TargetUrl, env: Readonly<Record<string, string | undefined>>): NfsClient {
  const asked = url.options.get('nfsClient') || env.LONGHORN_NFS_CLIENT || 'user'
  if (asked === 'user' || asked === 'kernel') return asked
  throw new LonghornError('USAGE', `${url.target}: nfsClient is "${asked}": expected user, which needs no right to mount, or kernel`)
}

/** Server and path of `nfs://SERVER:/PATH`. The colon belongs to the host, as upstream has it, and may be left out; `nfs://SERVER:PORT/PATH` is refused, as a port is an option. */
export function nfsLocation(url: TargetUrl): {readonly host: string; readonly path: string} {
  const host = url.host.replace(/:$/, '').replace(/^\[(.*)\]$/, '$1')
  if (host === '' || url.user !== '') throw new LonghornError('USAGE', `${url.target}: expected nfs://SERVER:/PATH`)
  if (url.path === '' || url.path === '/') throw new LonghornError('USAGE', `${url.target}: cannot find nfs path: expected nfs://SERVER:/PATH`)
  if (/^[^:]*:\d+$/.test(host)) throw new LonghornError('USAGE', `${url.target}: a port is an option: nfs://SERVER:/PATH?nfsOptions=port=${host.split(':')[1]}`)
  if (url.path.split('/').some(part => part === '..' || part === '.')) throw new LonghornError('USAGE', `${url.target}: "." and ".." cannot be in the path`)
  return {host, path: url.path.replace(/\/+/g, '/').replace(/\/$/, '')}
}

/**
 * What the client of this program does with the options. Those that it could only disregard to somebody's harm are UNSUPPORTED (Kerberos, other transports than TCP, read-only); those that it does not know are
 * USAGE, as mount.nfs would refuse them.
 */
export function nfsTarget(url: TargetUrl): NfsTarget {
  const settings: Settings = {version: 4, port: undefined, mountPort: undefined, timeoutMs: TIMEOUT_MS}
  for (const option of mountOptions(url)) {
    const at = option.indexOf('=')
    const [name, value] = at === -1 ? [option, ''] : [option.slice(0, at), option.slice(at + 1)]
    const apply = Object.hasOwn(OPTIONS, name) ? OPTIONS[name] : undefined
    if (apply !== undefined) apply(settings, value, url.target)
    else if (!WITHOUT_EFFECT.has(name)) throw new LonghornError('USAGE', `${url.target}: nfsOptions: "${option}" is not known`)
  }
  return {...nfsLocation(url), ...settings}
}

const OPTIONS: Readonly<Record<string, (settings: Settings, value: string, target: string) => void>> = {
  nfsvers: setVersion,
  vers: setVersion,
  v3: settings => (settings.version = 3),
  v4: settings => (settings.version = 4),
  minorversion: () => undefined,
  port: (settings, value, target) => (settings.port = toPort('port', value, target)),
  mountport: (settings, value, target) => (settings.mountPort = toPort('mountport', value, target)),
  timeo(settings, value, target) {
    // In tenths of a second.
    const timeoutMs = /^\d{1,6}$/.test(value) ? Number(value) * 100 : 0
    if (timeoutMs < 1000 || timeoutMs > MAX_TIMEOUT_MS) throw new LonghornError('USAGE', `${target}: nfsOptions: timeo=${value}: expected tenths of a second, 10 to ${MAX_TIMEOUT_MS / 100}`)
    settings.timeoutMs = timeoutMs
  },
  proto: only('proto', ['tcp', 'tcp6']),
  mountproto: only('mountproto', ['tcp', 'tcp6']),
  tcp: () => undefined,
  sec: only('sec', ['sys']),
  xprtsec: only('xprtsec', ['none']),
}

function setVersion(settings: Settings, value: string, target: string): void {
  const major = /^(3|4(?:\.[012])?)$/.exec(value)?.[1]?.[0]
  if (major === undefined) throw new LonghornError('USAGE', `${target}: nfsOptions: nfsvers=${value}: expected 3 or 4`)
  settings.version = major === '3' ? 3 : 4
}

function toPort(name: string, value: string, target: string): number | undefined {
  const port = /^\d{1,5}$/.test(value) ? Number(value) : -1
  // 0 is the way of mount.nfs to say "ask the portmapper".
  if (port < 0 || port > 65_535) throw new LonghornError('USAGE', `${target}: nfsOptions: ${name}=${value}: expected a port`)
  return port === 0 ? undefined : port
}

function only(name: string, supported: readonly string[]) {
  return (_settings: Settings, value: string, target: string): void => {
    if (supported.includes(value)) return
    throw new LonghornError('UNSUPPORTED', `${target}: nfsOptions: ${name}=${value} needs the kernel's client: add nfsClient=kernel to the URL; without a mount ${supported.join(' and ')} can be had`)
  }
}
