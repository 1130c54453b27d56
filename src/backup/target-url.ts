import {LonghornError} from '../lib/errors.js'

/** Names of volumes and backups, as upstream has them in URLs; the length keeps file names within what file systems take. */
const NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]{1,199}$/
const SELECTORS = ['volume', 'backup', 'backingImage']

/** A backup target, and what in it is meant: `vfs:///mnt/store?backup=B&volume=V`. */
export interface TargetUrl {
  readonly scheme: string
  /** User part: the bucket in `s3://bucket@region/path`. */
  readonly user: string
  readonly host: string
  /** Begins with a slash. */
  readonly path: string
  /** Options of the driver: the query without the selectors. */
  readonly options: URLSearchParams
  readonly volume: string | undefined
  readonly backup: string | undefined
  /** The target alone, with the options of its driver, as it is printed and handed on. */
  readonly target: string
}

/** Reads a URL as people and upstream's programs write it, with `\u0026` for `&` as Go prints it, also in quotes. Throws USAGE; never repeats a password. */
export function parseTargetUrl(text: string): TargetUrl {
  const unquoted = text.trim().replace(/^(["'])(.*)\1$/s, '$2')
  const plain = unquoted.replace('\\u0026', '&').replace('u0026', '&')
  let url: URL
  try {
    url = new URL(plain)
  } catch (error) {
    throw new LonghornError('USAGE', 'the backup target is not a URL: expected vfs:///path, nfs://server:/path or s3://bucket@region/path', {}, {cause: error})
  }
  if (url.password !== '') throw new LonghornError('USAGE', 'the backup target has a password in it: credentials come from the environment or a file')
  const query = url.searchParams
  const options = new URLSearchParams([...query].filter(([key]) => !SELECTORS.includes(key)))
  if (query.has('backingImage')) throw new LonghornError('UNSUPPORTED', 'backups of backing images are not supported')
  const volume = selector(query, 'volume', 'volume')
  const backup = selector(query, 'backup', 'backup')
  if (backup !== undefined && volume === undefined) throw new LonghornError('USAGE', `the URL names the backup ${backup} and no volume: expected ?backup=NAME&volume=VOL`)
  const path = decode(url.pathname, 'path')
  const user = decode(url.username, 'user part')
  const authority = user === '' ? url.host : `${url.username}@${url.host}`
  // The colon that upstream has behind an NFS server is what the parser takes for an empty port.
  const colon = url.protocol === 'nfs:' && url.port === '' ? ':' : ''
  const target = withQuery(`${url.protocol}//${authority}${colon}${legible(path)}`, options)
  return {scheme: url.protocol.slice(0, -1), user, host: url.host, path, options, volume, backup, target}
}

/** The URL of one backup, keys sorted as upstream writes them, among them those of the driver's options. */
export function backupUrl(target: string, volume: string, backup: string): string {
  return selecting(target, {backup, volume})
}

/** The target with selectors. */
export function selecting(target: string, selectors: Readonly<Record<string, string>>): string {
  const [base = '', query = ''] = target.split('?')
  const all = new URLSearchParams(query)
  for (const [key, value] of Object.entries(selectors)) all.set(key, value)
  all.sort()
  return withQuery(base, all)
}

/** A name of a volume or a backup from outside. Throws USAGE. */
export function checkName(name: string, what: string): string {
  if (NAME.test(name)) return name
  throw new LonghornError('USAGE', `"${name}" cannot be the name of a ${what}: 2 to 200 letters, digits, ".", "_" and "-", the first one a letter or digit`)
}

/** Whether a name that was found in a store can be one of ours or upstream's. */
export function isName(name: string): boolean {
  return NAME.test(name)
}

/** Values of options have commas and equals signs, which are legible in a query. */
function withQuery(base: string, query: URLSearchParams): string {
  const pairs = [...query].map(([key, value]) => `${encodeURIComponent(key)}=${encodeURIComponent(value).replaceAll('%2C', ',').replaceAll('%3D', '=')}`)
  return pairs.length === 0 ? base : `${base}?${pairs.join('&')}`
}

function selector(query: URLSearchParams, key: string, what: string): string | undefined {
  const value = query.get(key)
  return value === null || value === '' ? undefined : checkName(value, what)
}

/** Decoded, as upstream prints it, but for what would make another URL of it. */
function legible(path: string): string {
  return path.replace(/[%?#\s\p{Cc}]/gu, encodeURIComponent)
}

function decode(text: string, what: string): string {
  try {
    const decoded = decodeURIComponent(text)
    if (decoded.includes('\0')) throw new URIError('a NUL in it')
    return decoded
  } catch (error) {
    throw new LonghornError('USAGE', `the ${what} of the backup target is not well-formed`, {}, {cause: error})
  }
}
