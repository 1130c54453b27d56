// iSCSI sessions of the kernel's initiator, as /sys shows them.
import {readdir} from 'node:fs/promises'
import {join} from 'node:path'
import {errnoOf} from '../../../lib/errors.js'
import type {BlockNode} from '../attach-way.js'
import {readLine} from '../block-node.js'

const SESSIONS = '/sys/class/iscsi_session'

export interface IscsiSession {
  /** Its number; no other session gets it before the next boot. */
  readonly sid: number
  readonly iqn: string
  /** `LOGGED_IN`; `FAILED` while the initiator tries to log in again; `FREE` when it has given up. */
  readonly state: string
  /** The SCSI host that the kernel has made for it. */
  readonly host: number
  readonly units: readonly IscsiUnit[]
}

export interface IscsiUnit {
  readonly lun: number
  /** Where /sys shows the SCSI device. */
  readonly folder: string
  /** Undefined as long as the kernel has made no block device of it. */
  readonly node: BlockNode | undefined
}

/** The sessions with this target. */
export async function findSessions(iqn: string): Promise<IscsiSession[]> {
  const names = await namesIn(SESSIONS)
  const sessions = await Promise.all(names.map(readSession))
  return sessions.filter(session => session?.iqn === iqn).filter(session => session !== undefined)
}

/** The block device of a logical unit, if there is one. */
export function nodeOf(session: IscsiSession, lun: number): BlockNode | undefined {
  return session.units.find(unit => unit.lun === lun)?.node
}

async function readSession(name: string): Promise<IscsiSession | undefined> {
  const folder = join(SESSIONS, name)
  const iqn = await readLine(join(folder, 'targetname'))
  const state = await readLine(join(folder, 'state'))
  if (iqn === undefined || state === undefined) return undefined
  const device = join(folder, 'device')
  const targets = (await namesIn(device)).map(entry => /^target(\d+):(\d+):(\d+)$/.exec(entry)).filter(match => match !== null)
  const units = await Promise.all(targets.map(([target]) => unitsIn(join(device, target))))
  return {sid: Number(name.slice('session'.length)), iqn, state, host: Number(targets[0]?.[1] ?? -1), units: units.flat()}
}

async function unitsIn(target: string): Promise<IscsiUnit[]> {
  const addresses = (await namesIn(target)).map(name => /^\d+:\d+:\d+:(\d+)$/.exec(name)).filter(match => match !== null)
  return Promise.all(
    addresses.map(async ([address, lun]) => {
      const folder = join(target, address)
      const [name] = await namesIn(join(folder, 'block'))
      return {lun: Number(lun), folder, node: name === undefined ? undefined : await blockNode(name)}
    }),
  )
}

async function blockNode(name: string): Promise<BlockNode | undefined> {
  const [major, minor] = ((await readLine(`/sys/block/${name}/dev`)) ?? '').split(':').map(Number)
  return major === undefined || minor === undefined ? undefined : {name, major, minor}
}

async function namesIn(folder: string): Promise<string[]> {
  return readdir(folder).catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT') return []
    throw error
  })
}
