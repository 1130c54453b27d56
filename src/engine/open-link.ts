import {Cleanup} from '../lib/cleanup.js'
import {LonghornError} from '../lib/errors.js'
import {closeFd} from '../lib/net/socket-calls.js'
import {FEATURE} from '../protocol/frame.js'
import type {ReplicaControl, ReplicaFacts} from './replica-control.js'
import {ReplicaLink} from './replica-link.js'
import type {Volume} from './volume.js'

export interface LinkOptions {
  readonly volume: Volume
  readonly control: ReplicaControl
  readonly session: string
  readonly replicaTimeoutMs: number
  readonly signal?: AbortSignal | undefined
}

/** Opens a replica for this engine and connects to its data. Throws as ReplicaControl does, CORRUPT or CONFLICT for one that cannot be used. */
export async function openLink(options: LinkOptions, bit: number): Promise<ReplicaLink> {
  const {control, session} = options
  await using undo = new Cleanup()
  // Not given up half-way: it would stay open.
  const facts = await control.open(session)
  undo.defer(() => control.close())
  if (facts.state !== 'open' && facts.state !== 'dirty') {
    const kind = facts.state === 'error' ? 'CORRUPT' : 'CONFLICT'
    throw new LonghornError(kind, `replica ${control.address} is ${facts.state} after it was opened`)
  }
  const link = await connectLink(options, facts, bit)
  undo.move()
  return link
}

/** Connects to the data of a replica that this engine has opened, or that has joined. */
export async function connectLink({volume, control, session, replicaTimeoutMs, signal}: LinkOptions, facts: ReplicaFacts, bit: number): Promise<ReplicaLink> {
  await using undo = new Cleanup()
  const fd = await control.connectData(signal)
  undo.defer(() => closeFd(fd))
  const link = new ReplicaLink(control.address, bit, facts.features, {fd, host: control.host, timeoutMs: replicaTimeoutMs}, volume)
  undo.move()
  if (facts.id !== '') link.name = facts.id
  if (facts.features.includes(FEATURE.HELLO)) await greet(link, session, replicaTimeoutMs)
  return link
}

async function greet(link: ReplicaLink, session: string, timeoutMs: number): Promise<void> {
  const timer = setTimeout(() => link.client.close(new LonghornError('TIMEOUT', `replica ${link.address}: no answer to the greeting for ${timeoutMs} ms`)), timeoutMs)
  try {
    await link.client.hello({kind: 'engine', session})
  } finally {
    clearTimeout(timer)
  }
}
