// How an engine serves a volume to the device that it makes on its own host: as the way to attach wants it, and to nobody
// else. An NBD socket that only root can open, or an iSCSI target with CHAP secrets that only root can read, as any process
// can reach a port.
import {randomBytes} from 'node:crypto'
import {mkdir, rename, rm, writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import type {Address} from '../lib/address.js'
import {Cleanup} from '../lib/cleanup.js'
import {isKind, LonghornError} from '../lib/errors.js'
import {checkFree} from '../lib/net/check-free.js'
import type {Frontend, FrontendHandover, FrontendOptions} from '../engine/frontends/frontend.js'
import {readChapFile} from '../engine/frontends/iscsi/transport/chap-file.js'
import {iscsiFrontend} from '../engine/frontends/iscsi/iscsi-frontend.js'
import {nbdFrontend} from '../engine/frontends/nbd/nbd-frontend.js'
import type {AttachPlan} from './attach/attacher.js'
import type {Endpoint} from './attach/attach-way.js'
import {parseIscsiUri} from './attach/kernel-iscsi/iscsi-uri.js'
import {portalHost} from './attach/kernel-iscsi/portal-host.js'
import {TrimAsZeroes} from './trim-as-zeroes.js'

/** Of the sockets and secrets between an engine and its device. Only root gets in. */
const FOLDER = '/run/longhorn/blockdev'
const SECRET_BYTES = 24

export interface BlockdevExport {
  readonly endpoint: Endpoint
  readonly trim: 'reads-zeros' | 'may-keep-data'
  readonly frontend: Frontend
}

/** Throws CONFLICT when an engine serves this volume so already. */
export async function checkExportFree(volume: string, plan: AttachPlan): Promise<void> {
  await checkFree(plan.takes === 'nbd' ? socketOf(volume) : portalOf(plan))
}

/** Starts to serve; where an engine before this one did, if its device is still there to find it. */
export async function openExport(plan: AttachPlan, options: FrontendOptions): Promise<BlockdevExport> {
  await mkdir(FOLDER, {recursive: true, mode: 0o700})
  return plan.takes === 'nbd' ? openNbd(plan, options) : openIscsi(plan, options)
}

/** Prepares to go on with what another process serves to the volume's device; see FrontendKind.adopt(). */
export async function adoptExport({takes, zeroesByTrim}: ServedAs, options: FrontendOptions, from: FrontendHandover): Promise<() => Frontend> {
  if (takes === 'nbd') return nbdFrontend.adopt!({...options, device: zeroesByTrim ? new TrimAsZeroes(options.device) : options.device}, from)
  const chapFile = options.iscsi?.chapFile ?? secretsOf(options.volume)
  const start = await iscsiFrontend.adopt!({...options, iscsi: {...options.iscsi, chapFile}}, from)
  return () => withSecrets(start(), options, chapFile)
}

/** How an export is served; what another process has to know of it. */
export type ServedAs = Pick<AttachPlan, 'takes' | 'zeroesByTrim'>

async function openNbd({zeroesByTrim}: AttachPlan, options: FrontendOptions): Promise<BlockdevExport> {
  const address = socketOf(options.volume)
  const device = zeroesByTrim ? new TrimAsZeroes(options.device) : options.device
  const frontend = await nbdFrontend.open({...options, device, listen: address})
  return {endpoint: {kind: 'nbd', address, exportName: options.volume}, trim: zeroesByTrim ? 'reads-zeros' : 'may-keep-data', frontend}
}

async function openIscsi(plan: AttachPlan, options: FrontendOptions): Promise<BlockdevExport> {
  const chapFile = options.iscsi?.chapFile ?? (await privateSecrets(options.volume))
  await using undo = new Cleanup()
  if (options.iscsi?.chapFile === undefined) undo.defer(() => rm(chapFile, {force: true}))
  const served = await iscsiFrontend.open({...options, iscsi: {...options.iscsi, chapFile}, listen: portalOf(plan)})
  undo.move()
  return {endpoint: {...parseIscsiUri(served.endpoint), chapFile}, trim: 'may-keep-data', frontend: withSecrets(served, options, chapFile)}
}

/** The secrets go with the frontend, if they were made for it: the user's own stay. */
function withSecrets(served: Frontend, {iscsi}: FrontendOptions, chapFile: string): Frontend {
  if (iscsi?.chapFile !== undefined) return served
  let closed: Promise<void> | undefined
  return {...served, close: graceMs => (closed ??= served.close(graceMs).finally(() => rm(chapFile, {force: true})))}
}

/** Any port does, but a device that is there already looks for its target where that was. */
function portalOf({endpoint}: AttachPlan): Address {
  const host = portalHost()
  const port = endpoint?.kind === 'iscsi' && endpoint.address.host === host ? endpoint.address.port : 0
  return {kind: 'tcp', host, port}
}

function socketOf(volume: string): Address & {kind: 'unix'} {
  return {kind: 'unix', path: join(FOLDER, `${volume}.sock`)}
}

function secretsOf(volume: string): string {
  return join(FOLDER, `${volume}.chap`)
}

/** The file with the secrets that an engine before this one has left, as the device still uses them, or with new ones. */
async function privateSecrets(volume: string): Promise<string> {
  const path = secretsOf(volume)
  try {
    await readChapFile(path)
  } catch (error) {
    if (!(error instanceof LonghornError) || isKind(error, 'IO')) throw error
    await writeFile(`${path}.tmp`, newSecrets(), {mode: 0o600})
    await rename(`${path}.tmp`, path)
  }
  return path
}

/** For both directions: while no engine runs, its port is anybody's. */
function newSecrets(): string {
  const [initiator, target] = [1, 2].map(() => randomBytes(SECRET_BYTES).toString('base64url'))
  const values = {username: 'longhorn', password: initiator, username_in: 'longhorn-engine', password_in: target}
  return Object.entries(values)
    .map(([key, value]) => `node.session.auth.${key} = ${value}\n`)
    .join('')
}
