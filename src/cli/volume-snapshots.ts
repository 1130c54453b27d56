// What the replicas of a volume say of its snapshots, as one picture.
import {LonghornError} from '../lib/errors.js'
import {connect, type RpcClient} from '../protocol/grpc/client.js'
import {toSize} from '../protocol/grpc/fields.js'
import {ReplicaMode} from '../protocol/proto/generated/controller.js'
import {ReplicaServiceDefinition, type DiskInfo} from '../protocol/proto/generated/replica.js'
import {SyncAgentServiceDefinition} from '../protocol/proto/generated/sync-agent.js'
import {present, type EngineClient} from './engine-connection.js'
import {parseListen} from './flags.js'

/** What is written now, in the picture: it is on top of a snapshot, and none itself. */
export const VOLUME_HEAD = 'volume-head'

export interface Snapshot {
  readonly name: string
  /** Name of the snapshot below, '' for none. */
  readonly parent: string
  readonly children: readonly string[]
  readonly created: string
  /** What it takes on the disk of the replica where it takes the most, in bytes. */
  readonly size: number
  readonly userCreated: boolean
  /** Deleted, and there until it is purged. */
  readonly removed: boolean
  readonly labels: Readonly<Record<string, string>>
  /** Replicas in use that do not have it. None, normally. */
  readonly missingOn: readonly string[]
}

interface UsedReplica {
  readonly address: string
  readonly rpc: RpcClient<typeof ReplicaServiceDefinition>
}

/** Calls `use` with the replicas that are in use (RW). Throws NO_DATA when there is none. */
export async function withReplicas<T>(engine: EngineClient, volume: string | undefined, signal: AbortSignal, use: (replicas: readonly UsedReplica[]) => Promise<T>): Promise<T> {
  const {replicas} = await engine.replicaList({}, {signal})
  const used = replicas
    .filter(({mode}) => mode === ReplicaMode.RW)
    .map(({address}) => present(address, "a replica's address").address)
    .map(address => ({address, rpc: connect(ReplicaServiceDefinition, {peer: 'replica', address: parseListen(address, 'replica'), identity: {volumeName: volume}, timeoutMs: 30_000})}))
  try {
    if (used.length === 0) throw new LonghornError('NO_DATA', 'the volume has no usable replica')
    return await use(used)
  } finally {
    for (const {rpc} of used) rpc.destroy()
  }
}

/** The sync agent of a replica: two ports after its control service. */
export function connectSyncAgent(replica: string, volume: string | undefined): RpcClient<typeof SyncAgentServiceDefinition> {
  const address = parseListen(replica, 'replica')
  return connect(SyncAgentServiceDefinition, {peer: 'sync agent', address: {...address, port: address.port + 2}, identity: {volumeName: volume}, timeoutMs: 30_000})
}

/** The snapshots of a volume and its head, each after the one below it; branches after one another. */
export async function listSnapshots(engine: EngineClient, volume: string | undefined, signal: AbortSignal): Promise<Snapshot[]> {
  return withReplicas(engine, volume, signal, async replicas => {
    const answers = await Promise.all(replicas.map(async ({address, rpc}) => ({address, disks: present((await rpc.replicaGet({}, {signal})).replica, 'the replica').disks})))
    return merge(answers)
  })
}

/** The snapshot of that name. Throws NOT_FOUND. */
export function findSnapshot(snapshots: readonly Snapshot[], name: string): Snapshot {
  const found = snapshots.find(snapshot => snapshot.name === name && name !== VOLUME_HEAD)
  if (found === undefined) throw new LonghornError('NOT_FOUND', `the volume has no snapshot ${JSON.stringify(name)}`)
  return found
}

interface Answer {
  readonly address: string
  readonly disks: ReadonlyMap<string, DiskInfo>
}

function merge(answers: readonly Answer[]): Snapshot[] {
  const seen = new Map<string, {disk: DiskInfo; size: number; children: Set<string>; on: Set<string>}>()
  for (const {address, disks} of answers) {
    for (const [file, disk] of disks) {
      const name = nameOf(file)
      const known = seen.get(name) ?? {disk, size: 0, children: new Set<string>(), on: new Set<string>()}
      known.size = Math.max(known.size, toSize(disk.size === '' ? '0' : disk.size, `replica ${address}: size of ${file}`, 'PROTOCOL'))
      for (const child of disk.children.keys()) known.children.add(nameOf(child))
      known.on.add(address)
      seen.set(name, known)
    }
  }
  const snapshots = new Map<string, Snapshot>()
  for (const [name, {disk, size, children, on}] of seen) {
    snapshots.set(name, {
      name,
      parent: disk.parent === '' ? '' : nameOf(disk.parent),
      children: [...children].sort(),
      created: disk.created,
      size,
      userCreated: disk.userCreated,
      removed: disk.removed,
      labels: Object.fromEntries(disk.labels),
      missingOn: answers.map(answer => answer.address).filter(address => !on.has(address)),
    })
  }
  return inOrder(snapshots)
}

/** Parents before their children; of several children the branch that leads to the head comes last. */
function inOrder(snapshots: ReadonlyMap<string, Snapshot>): Snapshot[] {
  const live = new Set<string>()
  for (let at = snapshots.get(VOLUME_HEAD); at !== undefined && !live.has(at.name); at = snapshots.get(at.parent)) live.add(at.name)
  const sorted = [...snapshots.values()].sort((a, b) => Number(live.has(a.name)) - Number(live.has(b.name)) || a.created.localeCompare(b.created))
  const result: Snapshot[] = []
  const waiting = sorted.filter(({parent}) => !snapshots.has(parent)).reverse()
  const done = new Set<string>()
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    if (done.has(next.name)) continue
    done.add(next.name)
    result.push(next)
    const {name} = next
    waiting.push(...sorted.filter(({parent}) => parent === name).reverse())
  }
  return result
}

/** `volume-snap-NAME.img` is NAME, the head is the head whatever its number. */
function nameOf(file: string): string {
  if (/^volume-head-\d+\.img$/.test(file)) return VOLUME_HEAD
  return /^volume-snap-(.+)\.img$/.exec(file)?.[1] ?? file
}

/**
 * What to put before each name so that the list shows who stands on whom: nothing along a line, a fork where a
 * snapshot has several children. `*` marks what the volume's head stands on.
 */
export function treeMarks(snapshots: readonly Snapshot[]): Map<string, string> {
  const byName = new Map(snapshots.map(snapshot => [snapshot.name, snapshot]))
  const marks = new Map<string, string>()
  const indent = new Map<string, string>()
  for (const {name, parent} of snapshots) {
    const siblings = byName.get(parent)?.children.filter(child => byName.has(child)) ?? []
    const before = indent.get(parent) ?? ''
    if (siblings.length < 2) {
      marks.set(name, before)
      indent.set(name, before)
      continue
    }
    const last = snapshots.filter(one => one.parent === parent).at(-1)?.name === name
    marks.set(name, `${before}${last ? '└─ ' : '├─ '}`)
    indent.set(name, `${before}${last ? '   ' : '│  '}`)
  }
  return marks
}
