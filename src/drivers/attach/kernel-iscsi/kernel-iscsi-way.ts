// Attaching by the kernel's own iSCSI initiator, which open-iscsi on the host controls, as upstream does it:
//
//     /dev/longhorn/VOL = /dev/sdX ── kernel (SCSI, iSCSI) ──> engine
//
// - The session outlives the engine. When the connection ends, iscsid logs in again until it works; requests wait up to two
//   minutes and are then sent anew.
// - The target's name is the volume's, so a session with it is one of this volume's. One that was left behind by an engine or
//   an attachment of which nothing else is known is taken down, unless somebody uses its device.
// - What works in the kernel waits for the target. Before something is removed whose target is gone, it is taken offline, so
//   that it fails at once.
import {lookup} from 'node:dns/promises'
import {existsSync} from 'node:fs'
import {writeFile} from 'node:fs/promises'
import {connect, isIP} from 'node:net'
import {join} from 'node:path'
import {setTimeout as sleep} from 'node:timers/promises'
import {readChapFile} from '../../../engine/frontends/iscsi/transport/chap-file.js'
import {errnoOf, isKind, LonghornError, messageOf} from '../../../lib/errors.js'
import type {AttachRequest, AttachWay, Availability, BlockNode, Condition, IscsiEndpoint, Slot} from '../attach-way.js'
import {isObject} from '../attachment-record.js'
import {deviceSize, makeNode, readLine} from '../block-node.js'
import {findUsers} from '../device-users.js'
import {runCommand, tryCommand} from '../run-command.js'
import {IscsiHost} from './iscsi-host.js'
import {findSessions, nodeOf, type IscsiSession} from './iscsi-sessions.js'
import {deleteRecord, ISCSIADM, makeRecord, recordArgs, type Portal, type Settings} from './node-record.js'

const PORTAL_TIMEOUT_MS = 10_000
/** When somebody listens at the portal: iscsid tries every three seconds, or, after a host that did not answer, every thirteen. */
const RELOGIN_TIMEOUT_MS = 30_000
const ISCSIADM_TIMEOUT_MS = 40_000
const LOGIN_TIMEOUT_MS = 60_000
const SETTLE_TIMEOUT_MS = 5000
const MODPROBE_TIMEOUT_MS = 20_000
/** From a login to a block device: the kernel asks the target for its units, and each of them for what it is. */
const SCAN_TIMEOUT_MS = 30_000
const LOGOUT_TIMEOUT_MS = 20_000
const SYSFS_TIMEOUT_MS = 10_000
const RESIZE_TIMEOUT_MS = 10_000
const POLL_MS = 50

/** The kernel aborts a request after so many seconds; upstream's number. */
const REQUEST_TIMEOUT_S = '60'

/** As upstream has it, with more patience for an engine whose machine is busy, and less for one that cannot be logged in to. */
const SETTINGS: Settings = {
  'node.startup': 'manual',
  'node.session.scan': 'auto',
  'node.session.nr_sessions': '1',
  'node.session.timeo.replacement_timeout': '120',
  'node.session.err_timeo.abort_timeout': '15',
  'node.session.err_timeo.lu_reset_timeout': '30',
  'node.session.initial_login_retry_max': '3',
  'node.session.queue_depth': '128',
  'node.conn[0].timeo.login_timeout': '10',
  'node.conn[0].timeo.logout_timeout': '10',
  'node.conn[0].timeo.noop_out_interval': '5',
  'node.conn[0].timeo.noop_out_timeout': '15',
}

export interface KernelIscsiOptions {
  /** A device that does not answer a read for this long counts as dead. Default 10000. */
  readonly probeTimeoutMs?: number
}

/** How to find an attachment again. */
interface Place {
  readonly iqn: string
  readonly lun: number
  readonly portal: Portal
}

export class KernelIscsiWay implements AttachWay {
  readonly name = 'kernel-iscsi'
  readonly takes = 'iscsi'
  readonly zeroesByTrim = false
  readonly #probeTimeoutMs: number

  constructor({probeTimeoutMs = 10_000}: KernelIscsiOptions = {}) {
    this.#probeTimeoutMs = probeTimeoutMs
  }

  async available(): Promise<Availability> {
    if (process.geteuid?.() !== 0) return {ok: false, reason: 'making block devices needs root'}
    return IscsiHost.find().available()
  }

  async connect(request: AttachRequest<IscsiEndpoint>, slot: Slot, signal: AbortSignal): Promise<BlockNode> {
    const {endpoint} = request
    const settings = {...SETTINGS, ...(await chapSettings(endpoint.chapFile))}
    const host = IscsiHost.find()
    const place = {iqn: endpoint.iqn, lun: endpoint.lun, portal: await portalOf(endpoint)}
    if (host.sharesNetwork) await checkPortal(place.portal, signal)
    await slot.note({place})
    slot.step('place noted')
    await loadModule(host, signal)
    await host.startDaemon(signal)
    await removeOrphans(host, slot, place)
    await makeRecord(host, place.iqn, place.portal, settings, {timeoutMs: ISCSIADM_TIMEOUT_MS, signal})
    slot.step('record made')
    await slot.note({login: 'begun'})
    try {
      await logIn(host, slot, place)
    } finally {
      await slot.note({login: 'ended'})
    }
    slot.step('logged in')
    signal.throwIfAborted()
    const node = await waitForNode(place, signal)
    slot.step('device found')
    await this.#prepare(request, slot, node)
    return node
  }

  async inspect(slot: Slot, {probe}: {readonly probe: boolean}): Promise<Condition> {
    const place = placeOf(slot)
    if (place === undefined) return {state: 'gone'}
    const sessions = await findSessions(place.iqn)
    const [session] = sessions
    if (session === undefined) return {state: 'gone'}
    const node = nodeOf(session, place.lun)
    if (node === undefined) return {state: 'down', reason: `session ${session.sid} has no device with number ${place.lun}`}
    if (sessions.length > 1) return {state: 'down', reason: 'it has more than one session', node}
    const problem = await this.#problem(slot, place, session, node, probe)
    return problem === undefined ? {state: 'up', node} : {state: 'down', reason: problem, node}
  }

  async disconnect(slot: Slot, {force}: {readonly force: boolean}): Promise<readonly string[]> {
    const place = placeOf(slot)
    if (place === undefined) return []
    const host = IscsiHost.find()
    if (slot.notes?.login === 'begun') await waitForSession(place)
    for (const session of await findSessions(place.iqn)) {
      await removeSession(host, session, {force})
      slot.step('logged out')
    }
    await deleteRecord(host, place.iqn, place.portal, {timeoutMs: ISCSIADM_TIMEOUT_MS})
    slot.step('record deleted')
    return []
  }

  async resize(slot: Slot, sizeBytes: number, signal: AbortSignal): Promise<void> {
    const place = placeOf(slot)
    const [session] = place === undefined ? [] : await findSessions(place.iqn)
    const node = session === undefined || place === undefined ? undefined : nodeOf(session, place.lun)
    if (session === undefined || node === undefined) throw new LonghornError('NOT_FOUND', `volume ${slot.volume} has no device`)
    const limits = {timeoutMs: ISCSIADM_TIMEOUT_MS, signal}
    const {ok, stderr} = await IscsiHost.find().run('iscsiadm', ['-m', 'session', '-r', `${session.sid}`, '--rescan'], limits)
    if (!ok) throw new LonghornError('IO', `the device of volume ${slot.volume} cannot be looked at again: ${stderr}`)
    for (const deadline = performance.now() + RESIZE_TIMEOUT_MS; performance.now() < deadline; await sleep(POLL_MS)) {
      if (((await deviceSize(node)) ?? 0) >= sizeBytes) return
    }
    throw new LonghornError('UNSUPPORTED', `the target of volume ${slot.volume} has ${await deviceSize(node)} bytes, not ${sizeBytes}`)
  }

  async #prepare({volume, readOnly, sizeBytes}: AttachRequest, slot: Slot, node: BlockNode): Promise<void> {
    await writeFile(`/sys/block/${node.name}/device/timeout`, REQUEST_TIMEOUT_S)
    const blockBytes = await readLine(`/sys/block/${node.name}/queue/logical_block_size`)
    if (blockBytes !== '512') throw new LonghornError('UNSUPPORTED', `volume ${volume} is served in blocks of ${blockBytes} bytes: 512 are expected`)
    const found = await deviceSize(node)
    if (sizeBytes !== undefined && sizeBytes !== found) {
      throw new LonghornError('UNSUPPORTED', `volume ${volume} is served with ${found} bytes, and an iSCSI device cannot be made to have ${sizeBytes}`)
    }
    // A node of its own: a read that hangs is then not taken for a user of the device.
    await makeNode(probeNode(slot), node)
    if (readOnly === true) await runCommand('blockdev', ['--setro', probeNode(slot)], {timeoutMs: SYSFS_TIMEOUT_MS})
  }

  /** Why the device does not work; undefined if it does. */
  async #problem(slot: Slot, {portal}: Place, {sid, iqn, state}: IscsiSession, node: BlockNode, probe: boolean): Promise<string | undefined> {
    if (state !== 'LOGGED_IN') {
      const waitMs = state === 'FAILED' && probe && (await isServed(portal)) ? RELOGIN_TIMEOUT_MS : 0
      const now = await stateAfter(waitMs, sid, iqn)
      if (now !== 'LOGGED_IN') return `session ${sid} is ${now}`
    }
    return probe ? readProblem(probeNode(slot), node, this.#probeTimeoutMs) : undefined
  }
}

async function chapSettings(chapFile: string | undefined): Promise<Settings> {
  if (chapFile === undefined) return {'node.session.auth.authmethod': 'None'}
  const {session} = await readChapFile(chapFile)
  if (session === undefined) throw new LonghornError('USAGE', `${chapFile}: node.session.auth.username and .password are missing`)
  const {initiator, target} = session
  return {
    'node.session.auth.authmethod': 'CHAP',
    'node.session.auth.username': initiator.name,
    'node.session.auth.password': initiator.secret,
    ...(target === undefined ? {} : {'node.session.auth.username_in': target.name, 'node.session.auth.password_in': target.secret}),
  }
}

async function loadModule(host: IscsiHost, signal: AbortSignal): Promise<void> {
  if (existsSync('/sys/module/iscsi_tcp')) return
  const {ok, stderr} = await host.run('modprobe', ['iscsi_tcp'], {timeoutMs: MODPROBE_TIMEOUT_MS, signal})
  if (!ok) throw new LonghornError('UNSUPPORTED', `the kernel module iscsi_tcp cannot be loaded: ${lastLine(stderr)}`)
}

/** Records, and what /sys shows, have addresses and no names. */
async function portalOf({address}: IscsiEndpoint): Promise<Portal> {
  const {host, port} = address
  if (isIP(host) !== 0) return {host, port}
  try {
    return {host: (await lookup(host)).address, port}
  } catch (error) {
    throw new LonghornError('UNREACHABLE', `${host}: ${errnoOf(error) ?? messageOf(error)}`, {}, {cause: error})
  }
}

/** Asked before iscsid, which would try for a long time. Throws UNREACHABLE, TIMEOUT, or the signal's reason. */
async function checkPortal({host, port}: Portal, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted()
  const where = `iSCSI portal ${host}:${port}`
  const socket = connect({host, port, signal})
  try {
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve).once('error', reject)
      socket.setTimeout(PORTAL_TIMEOUT_MS, () => reject(new LonghornError('TIMEOUT', `${where} did not answer within ${PORTAL_TIMEOUT_MS} ms`)))
    })
  } catch (error) {
    signal.throwIfAborted()
    if (error instanceof LonghornError) throw error
    throw new LonghornError('UNREACHABLE', `${where}: ${errnoOf(error) ?? messageOf(error)}`, {}, {cause: error})
  } finally {
    socket.on('error', () => undefined).destroy()
  }
}

/** False when there is no point in waiting for a session with it. From another network than the initiator's that cannot be told. */
async function isServed(portal: Portal): Promise<boolean> {
  if (!IscsiHost.find().sharesNetwork) return true
  try {
    await checkPortal(portal, AbortSignal.timeout(PORTAL_TIMEOUT_MS))
    return true
  } catch {
    return false
  }
}

/** The state of a session when it is logged in, or after so long. */
async function stateAfter(waitMs: number, sid: number, iqn: string): Promise<string> {
  for (const deadline = performance.now() + waitMs; ; await sleep(POLL_MS)) {
    const state = (await findSessions(iqn)).find(session => session.sid === sid)?.state ?? 'gone'
    if (state !== 'FAILED' || performance.now() >= deadline) return state
  }
}

/** Sessions with our target that nobody has a record of. Throws CONFLICT when the device of one is in use. */
async function removeOrphans(host: IscsiHost, slot: Slot, {iqn}: Place): Promise<void> {
  for (const session of await findSessions(iqn)) {
    for (const {node} of session.units) {
      const users = node === undefined ? [] : await findUsers(node, [`/dev/${node.name}`])
      if (users.length === 0) continue
      const who = users.map(({description}) => description).join(', ')
      throw new LonghornError('CONFLICT', `volume ${slot.volume} is attached already, as /dev/${node?.name}, and ${who}`, {users})
    }
    await removeSession(host, session, {force: false})
    slot.step('orphan removed')
  }
}

/** Not to be interrupted: what iscsid has been told to do it does, and that could not be undone as long as there is no session. */
async function logIn(host: IscsiHost, slot: Slot, {iqn, portal}: Place): Promise<void> {
  const {ok, exitCode, stderr} = await host.run('iscsiadm', [...recordArgs(iqn, portal), '--login'], {timeoutMs: LOGIN_TIMEOUT_MS})
  if (ok || exitCode === ISCSIADM.SESSION_EXISTS) return
  const what = `volume ${slot.volume}: cannot log in to ${iqn} at ${portal.host}:${portal.port}`
  if (exitCode === ISCSIADM.NOT_AUTHORIZED) throw new LonghornError('USAGE', `${what}: the target wants a CHAP name and secret, or other ones`)
  const unreachable: (number | undefined)[] = [ISCSIADM.TRANSPORT, ISCSIADM.TRANSPORT_TIMEOUT, ISCSIADM.LOGIN, ISCSIADM.FATAL_LOGIN]
  throw new LonghornError(unreachable.includes(exitCode) ? 'UNREACHABLE' : 'IO', `${what}: ${lastLine(stderr)}`)
}

async function waitForNode({iqn, lun}: Place, signal: AbortSignal): Promise<BlockNode> {
  for (const deadline = performance.now() + SCAN_TIMEOUT_MS; performance.now() < deadline; await sleep(POLL_MS)) {
    signal.throwIfAborted()
    const [session] = await findSessions(iqn)
    const node = session === undefined ? undefined : nodeOf(session, lun)
    if (node !== undefined && (await deviceSize(node))) return node
  }
  throw new LonghornError('TIMEOUT', `${iqn} has shown no disk with number ${lun} within ${SCAN_TIMEOUT_MS} ms`)
}

/** Somebody died while iscsid was logging in for him: the session may come yet. */
async function waitForSession({iqn}: Place): Promise<void> {
  for (const deadline = performance.now() + SETTLE_TIMEOUT_MS; performance.now() < deadline; await sleep(POLL_MS)) {
    if ((await findSessions(iqn)).some(({state}) => state === 'LOGGED_IN')) return
  }
}

/** Ends a session, and with it its devices. With `force`, or when the target is gone, whoever uses them gets errors first. */
async function removeSession(host: IscsiHost, session: IscsiSession, {force}: {readonly force: boolean}): Promise<void> {
  if (force || session.state !== 'LOGGED_IN') await removeUnits(session)
  await host.startDaemon(undefined)
  const limits = {timeoutMs: ISCSIADM_TIMEOUT_MS}
  const {ok, exitCode, stderr} = await host.run('iscsiadm', ['-m', 'session', '-r', `${session.sid}`, '--logout'], limits)
  for (const deadline = performance.now() + LOGOUT_TIMEOUT_MS; performance.now() < deadline; await sleep(POLL_MS)) {
    if (!(await findSessions(session.iqn)).some(({sid}) => sid === session.sid)) return
    if (!ok && exitCode !== ISCSIADM.NOTHING_FOUND) break
  }
  throw new LonghornError('IO', `session ${session.sid} with ${session.iqn} does not end: ${lastLine(stderr) || 'iscsiadm has no complaint'}`)
}

/** In processes of their own, as the kernel may wait there. */
async function removeUnits({units}: IscsiSession): Promise<void> {
  for (const {folder, node} of units) {
    if (node === undefined) continue
    for (const [file, word] of [['state', 'offline'], ['delete', '1']] as const) {
      try {
        await tryCommand('sh', ['-c', 'echo "$1" > "$2"', 'sh', word, join(folder, file)], {timeoutMs: SYSFS_TIMEOUT_MS})
      } catch (error) {
        if (!isKind(error, 'TIMEOUT')) throw error
      }
    }
  }
}

/** Reads one sector, past all caches, in a process that may get stuck. Undefined when it came back. */
async function readProblem(path: string, node: BlockNode, timeoutMs: number): Promise<string | undefined> {
  try {
    await makeNode(path, node)
    const args = [`if=${path}`, 'of=/dev/null', 'bs=512', 'count=1', 'iflag=direct', 'status=none']
    const {ok, stderr} = await tryCommand('dd', args, {timeoutMs})
    return ok ? undefined : `it cannot be read (${stderr})`
  } catch (error) {
    if (!isKind(error, 'TIMEOUT')) throw error
    return `nothing has answered a read for ${timeoutMs} ms`
  }
}

function probeNode(slot: Slot): string {
  return join(slot.directory, 'device')
}

function placeOf({notes}: Slot): Place | undefined {
  const place = notes?.place
  return isObject(place) && typeof place.iqn === 'string' ? (place as unknown as Place) : undefined
}

/** iscsiadm says the reason last. */
function lastLine(text: string): string {
  return text.split('\n').at(-1) ?? ''
}
