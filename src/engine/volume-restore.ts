import {backupUrl, parseTargetUrl} from '../backup/target-url.js'
import {LonghornError} from '../lib/errors.js'
import {FEATURE} from '../protocol/frame.js'
import {isUnavailable} from './replica-control.js'
import {Restore, type RestoreHost, type RestoreInfo, type RestoreRequest} from './restore.js'
import {RestoreAgent} from './restore-agent.js'
import {commonBase, judge, type RestoredState} from './restored-state.js'

export interface VolumeRestoreHost extends RestoreHost {
  /** The name of the frontend that is up. */
  frontend(): string | undefined
}

export interface VolumeRestoreStatus extends Omit<RestoreInfo, 'state'> {
  /** '' before the first one. */
  readonly state: RestoreInfo['state'] | ''
  /** URL of the last backup that is complete in the volume; ''. */
  readonly lastRestored: string
  /** A frontend may start. */
  readonly usable: boolean
}

const NEVER = {state: '', backup: '', error: '', incremental: false, replicas: []} as const

/** The restores of one volume: one at a time, and what is known of the last one. */
export class VolumeRestore {
  readonly #host: VolumeRestoreHost
  #last: Restore | undefined

  constructor(host: VolumeRestoreHost) {
    this.#host = host
  }

  /** One is under way. */
  get running(): boolean {
    return this.#last?.info.state === 'in_progress'
  }

  /**
   * Begins to restore a backup into the volume, on all replicas, and resolves when they have begun; what was written since is given up. Only what differs is fetched where
   * the volume holds an earlier backup of the same volume. A backup that it holds already is success.
   *
   * CONFLICT while a frontend is up or a replica is being rebuilt, for a volume that has data other than a backup's (unless `replace`), or that is too small; BUSY while another one runs;
   * UNSUPPORTED with replicas of upstream; NOT_FOUND and others as openBackup().
   */
  async start(request: RestoreRequest, replace: boolean): Promise<void> {
    await this.#host.inTurn(async () => {
      const {volume} = this.#host
      const frontend = this.#host.frontend()
      if (frontend !== undefined) throw new LonghornError('CONFLICT', `frontend ${frontend} is up; shut it down before restoring a backup into the volume`)
      this.checkIdle('restored')
      const wanted = urlOf(request.backup)
      const rebuilding = volume.members.find(link => link.mode !== 'RW')
      if (rebuilding !== undefined) throw new LonghornError('CONFLICT', `replica ${rebuilding.address} is being rebuilt; restore when it is done`)
      if (volume.readers.length === 0) throw new LonghornError('NO_DATA', 'the volume has no usable replica')
      const other = volume.readers.find(link => !link.features.includes(FEATURE.RESTORE))
      if (other !== undefined) throw new LonghornError('UNSUPPORTED', `replica ${other.address} is one of upstream, which this engine cannot restore into: use upstream's client (longhorn --url ENGINE backup restore)`)
      const states = await this.#states()
      const base = commonBase(states)
      if (base?.backup === wanted && states.every(({restored}) => (restored?.begun ?? '') === '')) {
        this.#last = Restore.complete(this.#host, request)
        return
      }
      if (!replace && states.every(({restored}) => restored === undefined) && states.some(({holdsData}) => holdsData)) {
        throw new LonghornError('CONFLICT', 'the volume has data, which a restore would replace: choose an empty volume, or ask for it to be replaced (--replace)')
      }
      // Who has everything is recorded before some of it becomes something else.
      await volume.recorded()
      const restore = new Restore(this.#host, request, base)
      this.#last = restore
      await restore.begin(base)
    })
  }

  /** How far it is, or what came of the last one, also one of an engine before this. */
  async status(): Promise<VolumeRestoreStatus> {
    const states = await this.#states()
    const {unusable} = judge(states)
    const lastRestored = states.find(({restored}) => (restored?.backup ?? '') !== '')?.restored?.backup ?? ''
    const known = {lastRestored, usable: unusable === undefined && !this.running}
    if (this.#last !== undefined) return {...this.#last.info, ...known}
    const begun = states.find(({restored}) => (restored?.begun ?? '') !== '')?.restored?.begun
    if (begun === undefined) return {...NEVER, ...known}
    return {...NEVER, ...known, state: 'error', backup: begun, error: unusable?.message ?? `the restore of ${begun} was not finished`}
  }

  /** Ends one that runs, and has the replicas forget what was not finished. What is in its place stays. */
  async cancel(): Promise<void> {
    await this.#last?.cancel()
    await this.#host.inTurn(async () => {
      const links = this.#host.volume.readers.filter(link => link.features.includes(FEATURE.RESTORE))
      await Promise.all(
        links.map(async link => {
          using agent = new RestoreAgent(link.address, this.#host.volume.name)
          await agent.cancel()
        }),
      )
      this.#last = undefined
    })
  }

  /** The engine ends. */
  async stop(): Promise<void> {
    await this.#last?.stop()
  }

  /** Throws BUSY while a backup is being restored: then the volume cannot be `what`. */
  checkIdle(what: string): void {
    if (this.running) throw new LonghornError('BUSY', `the volume cannot be ${what}: the restore of ${this.#last!.info.backup} is already in progress`)
  }

  /**
   * Throws when the volume must not be used, as it is not complete: CONFLICT, or BUSY while a backup is being restored, by whomever. Replicas that lack what others have are dropped.
   */
  async checkUsable(): Promise<void> {
    this.checkIdle('used')
    const {behind, unusable} = judge(await this.#states())
    if (unusable !== undefined) throw unusable
    if (behind.size === 0) return
    const {volume} = this.#host
    for (const link of [...volume.readers]) {
      const reason = behind.get(link.address)
      if (reason !== undefined) volume.fail(link, reason)
    }
    volume.forgetMissed()
    await volume.recorded()
  }

  /** What the replicas say of themselves. One that does not answer says nothing, unless it is the only one: it is about to be dropped. */
  async #states(): Promise<RestoredState[]> {
    const {volume, control} = this.#host
    const links = volume.readers.filter(link => link.features.includes(FEATURE.RESTORE))
    const results = await Promise.allSettled(links.map(async link => ({...(await control(link).inspect()), address: link.address})))
    const states = results.flatMap(result => (result.status === 'fulfilled' ? [result.value] : []))
    const failed = results.flatMap(result => (result.status === 'rejected' ? [result.reason as Error] : []))
    const reason = failed.find(error => !isUnavailable(error)) ?? (states.length === 0 ? failed[0] : undefined)
    if (reason !== undefined) throw reason
    return states
  }
}

/** As replicas record it. Throws USAGE when it does not name a backup. */
function urlOf(text: string): string {
  const {target, volume, backup} = parseTargetUrl(text)
  if (volume === undefined || backup === undefined) throw new LonghornError('USAGE', `${target}: which backup? Expected '${target}?backup=NAME&volume=VOL'`)
  return backupUrl(target, volume, backup)
}
