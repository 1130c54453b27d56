import {posix} from 'node:path'
import {LonghornError} from '../../lib/errors.js'
import {loadBackupKeys} from '../encryption/backup-keys.js'
import type {TargetUrl} from '../target-url.js'
import type {BackupStore} from './backup-store.js'
import {VfsStore} from './vfs.js'

export interface StoreOptions {
  /** Where credentials and settings of the store are looked up, by upstream's names: the environment, or what a request brought along. */
  readonly env: Readonly<Record<string, string | undefined>>
}

type Opener = (url: TargetUrl, options: StoreOptions) => Promise<BackupStore>

const DRIVERS: Readonly<Record<string, Opener>> = {
  async vfs(url) {
    if (url.host !== '' || url.user !== '') throw new LonghornError('USAGE', `${url.target}: a vfs target has no host: vfs:///path`)
    const path = posix.normalize(url.path)
    if (path === '/') throw new LonghornError('USAGE', `${url.target}: a vfs target needs a path: vfs:///path`)
    return new VfsStore(path.replace(/\/$/, ''), url.target)
  },
  async nfs(url, {env}) {
    const {nfsClient, nfsTarget} = await import('./nfs-options.js')
    if (nfsClient(url, env) === 'kernel') {
      const {mountNfs} = await import('./nfs-mount.js')
      return new VfsStore(await mountNfs(url), url.target)
    }
    const target = nfsTarget(url)
    const {NfsStore} = await import('./nfs.js')
    return NfsStore.open(url.target, target)
  },
  async s3(url, {env}) {
    // The SDK takes a while to load, and most commands do without it.
    const {S3Store} = await import('./s3.js')
    return S3Store.open(url, env)
  },
}

/** Opens the store of a target, with the keys of the environment. USAGE for a URL that its driver cannot take and for keys that are none, UNSUPPORTED for a scheme that there is no driver for. */
export async function openStore(url: TargetUrl, options: StoreOptions): Promise<BackupStore> {
  const driver = Object.hasOwn(DRIVERS, url.scheme) ? DRIVERS[url.scheme] : undefined
  if (driver === undefined) {
    throw new LonghornError('UNSUPPORTED', `driver ${url.scheme} is not supported: the backup target must begin with one of ${Object.keys(DRIVERS).map(name => `${name}://`).join(', ')}`)
  }
  // First, as a key that cannot be read is no reason to talk to a server.
  const keys = loadBackupKeys(options.env)
  const store = await driver(url, options)
  store.keys = keys
  return store
}
