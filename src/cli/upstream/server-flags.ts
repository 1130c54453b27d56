// Flags that upstream's manager gives to its engines and replicas, beside those that these processes have anyway.
import {Flags} from '@oclif/core'
import {LonghornError} from '../../lib/errors.js'
import {parseSize} from '../../lib/sizes.js'

/** Upstream's manager gives an empty text when there is no limit. */
const limitFlag = Flags.custom<number>({helpValue: 'SIZE', parse: async text => (text === '' ? 0 : parseSize(text))})

/** Limits of a volume, which engine and replica both take. */
export const limitFlags = {
  'snapshot-max-count': Flags.integer({default: 0, min: 0, description: 'the most snapshots, without removed ones; 0 for any number'}),
  'snapshot-max-size': limitFlag({description: 'the most that snapshots may take on a disk, e.g. 20g; any amount when left out'}),
}

const ignored = {hidden: true, description: 'accepted for programs that know upstream; has no effect'}
const sharedFlags = {
  'data-server-protocol': Flags.string({hidden: true, default: 'tcp', description: 'tcp; nothing else is supported'}),
  disableRevCounter: Flags.boolean(ignored),
}

export const engineServerFlags = {
  ...limitFlags,
  ...sharedFlags,
  'unmap-mark-snap-chain-removed': Flags.boolean({description: 'an unmap marks the snapshots under the head as removed'}),
  'rebuild-sync-concurrent-limit': Flags.integer({hidden: true, default: 1, min: 1, description: "from how many replicas at once upstream's programs copy in a rebuild"}),
  'file-sync-http-client-timeout': Flags.integer(ignored),
  'volume-name': Flags.string({hidden: true, description: 'must be the name of the volume'}),
  'enable-backend': Flags.string({hidden: true, multiple: true, multipleNonGreedy: true, description: 'tcp; nothing else is supported'}),
  salvageRequested: Flags.boolean({hidden: true, description: 'use the one replica that is given as it is'}),
  url: Flags.string(ignored),
}

export const replicaServerFlags = {
  ...limitFlags,
  ...sharedFlags,
  'unmap-mark-disk-chain-removed': Flags.boolean({description: 'an unmap marks the snapshots under the head as removed'}),
  'sync-agent': Flags.boolean({default: true, allowNo: true, description: 'serve long operations, such as purges, on the second port after --listen'}),
  'backing-file': Flags.string({hidden: true, description: 'refused: a file that the volume is based on'}),
  encrypted: Flags.boolean({hidden: true, description: 'refused: make room for the header of an encrypted volume'}),
  'restore-from': Flags.string(ignored),
  'restore-name': Flags.string(ignored),
  'engine-instance-name': Flags.string(ignored),
  url: Flags.string(ignored),
}

interface SharedValues {
  readonly 'data-server-protocol': string
  readonly disableRevCounter: boolean
}

interface EngineValues extends SharedValues {
  readonly 'volume-name'?: string | undefined
  readonly 'enable-backend'?: readonly string[] | undefined
  readonly 'file-sync-http-client-timeout'?: number | undefined
  readonly salvageRequested: boolean
  readonly url?: string | undefined
}

interface ReplicaValues extends SharedValues {
  readonly 'backing-file'?: string | undefined
  readonly encrypted: boolean
  readonly 'restore-from'?: string | undefined
  readonly 'restore-name'?: string | undefined
  readonly 'engine-instance-name'?: string | undefined
  readonly url?: string | undefined
}

/**
 * Checks an engine's flags of upstream. Returns those that are ignored because nothing is lost without them. Throws
 * UNSUPPORTED for one that promises what this engine does not keep.
 */
export function checkEngineFlags(flags: EngineValues, volume: string, replicas: number): string[] {
  checkProtocol(flags)
  if (flags['volume-name'] !== undefined && flags['volume-name'] !== volume) {
    throw new LonghornError('USAGE', `--volume-name is ${flags['volume-name']}, but the volume is ${volume}`)
  }
  const backend = flags['enable-backend']?.find(name => name !== 'tcp')
  if (backend !== undefined) throw new LonghornError('UNSUPPORTED', `--enable-backend ${backend}: only tcp is supported`)
  if (flags.salvageRequested && replicas > 1) {
    throw new LonghornError('UNSUPPORTED', '--salvageRequested: which of several replicas is to be kept is not decided here; start with that one alone')
  }
  return given(flags, ['disableRevCounter', 'file-sync-http-client-timeout', 'url'])
}

/** The same for a replica. */
export function checkReplicaFlags(flags: ReplicaValues): string[] {
  checkProtocol(flags)
  if (flags['backing-file']) throw new LonghornError('UNSUPPORTED', `--backing-file ${flags['backing-file']}: volumes that are based on a file are not supported`)
  if (flags.encrypted) throw new LonghornError('UNSUPPORTED', '--encrypted: this replica does not make room for the header of an encrypted volume')
  return given(flags, ['restore-from', 'restore-name', 'engine-instance-name', 'url'])
}

function checkProtocol({'data-server-protocol': protocol}: SharedValues): void {
  if (protocol !== 'tcp') throw new LonghornError('UNSUPPORTED', `--data-server-protocol ${protocol}: only tcp is supported`)
}

function given(flags: object, names: readonly string[]): string[] {
  const values = new Map<string, unknown>(Object.entries(flags))
  return names.filter(name => ![undefined, false, ''].includes(values.get(name) as undefined)).map(name => `--${name}`)
}
