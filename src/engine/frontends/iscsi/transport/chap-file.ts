// Where the secrets of CHAP come from: a file with the lines of open-iscsi's iscsid.conf, so that the same lines serve on both
// sides; or a folder with a file for each of these keys, which is what a Kubernetes secret of type kubernetes.io/iscsi-chap
// looks like in a container. What is not about CHAP is passed over.
import {readdir, readFile, stat} from 'node:fs/promises'
import {join} from 'node:path'
import {errnoOf, LonghornError, messageOf} from '../../../../lib/errors.js'
import type {ChapSettings, Credentials} from './chap.js'

/** RFC 7143 section 12.1.3 wants 96 bits where the connection is not encrypted. */
const LEAST_SECRET_BYTES = 12
const MOST_SECRET_BYTES = 255
const MOST_NAME_BYTES = 255

/** What is asked of those who want the volume, and of those who only want to know which target there is. */
export interface AccessSecrets {
  readonly session: ChapSettings | undefined
  readonly discovery: ChapSettings | undefined
}

/** Reads the file or folder. Throws NOT_FOUND, IO or USAGE; no secret gets into an error. */
export async function readChapFile(path: string): Promise<AccessSecrets> {
  let text
  try {
    text = (await stat(path)).isDirectory() ? await linesOfFolder(path) : await readFile(path, 'utf8')
  } catch (error) {
    const kind = errnoOf(error) === 'ENOENT' ? 'NOT_FOUND' : 'IO'
    throw new LonghornError(kind, `cannot read the CHAP secrets in ${path}: ${messageOf(error)}`, {}, {cause: error})
  }
  const secrets = parseSecrets(text, path)
  // A file that was meant to protect the volume and does not is worse than none.
  if (secrets.session === undefined) throw new LonghornError('USAGE', `${path}: node.session.auth.username and .password are missing`)
  return secrets
}

/**
 * Reads
 *
 *     node.session.auth.username = NAME          what initiators prove
 *     node.session.auth.password = SECRET
 *     node.session.auth.username_in = NAME       what the target proves, for mutual CHAP
 *     node.session.auth.password_in = SECRET
 *     discovery.sendtargets.auth.…               the same for discovery
 */
export function parseSecrets(text: string, source: string): AccessSecrets {
  const values = new Map<string, string>()
  for (const line of text.split('\n')) {
    const match = /^\s*((?:node\.session|discovery\.sendtargets)\.auth\.(?:username|password)(?:_in)?)\s*=\s*(.*?)\s*$/.exec(line)
    if (match === null) continue
    const [, key = '', value = ''] = match
    if (values.has(key)) throw new LonghornError('USAGE', `${source}: ${key} is given twice`)
    values.set(key, value)
  }
  const secrets = {
    session: settingsOf(values, 'node.session.auth', source),
    discovery: settingsOf(values, 'discovery.sendtargets.auth', source),
  }
  refuseShared(secrets, source)
  return secrets
}

/** Otherwise the proof that an initiator needs could be obtained from the target, by asking it the same question. */
function refuseShared({session, discovery}: AccessSecrets, source: string): void {
  const ofInitiators = [session?.initiator.secret, discovery?.initiator.secret]
  const ofTargets = [session?.target?.secret, discovery?.target?.secret]
  if (ofTargets.some(secret => secret !== undefined && ofInitiators.includes(secret))) {
    throw new LonghornError('USAGE', `${source}: the target's secret (password_in) must not be that of initiators (password)`)
  }
}

async function linesOfFolder(path: string): Promise<string> {
  const keys = (await readdir(path)).filter(name => name.includes('.auth.'))
  const lines = await Promise.all(keys.map(async key => `${key} = ${(await readFile(join(path, key), 'utf8')).trim()}`))
  return lines.join('\n')
}

function settingsOf(values: ReadonlyMap<string, string>, prefix: string, source: string): ChapSettings | undefined {
  const initiator = credentialsOf(values, prefix, '', source)
  const target = credentialsOf(values, prefix, '_in', source)
  if (initiator === undefined) {
    if (target !== undefined) throw new LonghornError('USAGE', `${source}: ${prefix}.username_in without ${prefix}.username`)
    return undefined
  }
  return {initiator, target}
}

function credentialsOf(values: ReadonlyMap<string, string>, prefix: string, suffix: string, source: string): Credentials | undefined {
  const name = values.get(`${prefix}.username${suffix}`)
  const secret = values.get(`${prefix}.password${suffix}`)
  if (name === undefined && secret === undefined) return undefined
  if (name === undefined || name === '') throw new LonghornError('USAGE', `${source}: ${prefix}.username${suffix} is missing`)
  if (secret === undefined) throw new LonghornError('USAGE', `${source}: ${prefix}.password${suffix} is missing`)
  if (Buffer.byteLength(name) > MOST_NAME_BYTES) throw new LonghornError('USAGE', `${source}: ${prefix}.username${suffix} is longer than ${MOST_NAME_BYTES} bytes`)
  const bytes = Buffer.byteLength(secret)
  if (bytes < LEAST_SECRET_BYTES || bytes > MOST_SECRET_BYTES) {
    throw new LonghornError('USAGE', `${source}: ${prefix}.password${suffix} has ${bytes} bytes: expected ${LEAST_SECRET_BYTES} to ${MOST_SECRET_BYTES}`)
  }
  return {name, secret}
}
