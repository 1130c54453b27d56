import {randomUUID} from 'node:crypto'
import {LonghornError} from '../lib/errors.js'
import {expandVolume, revertVolume, takeSnapshot, type Members} from './snapshots.js'
import type {InTurn} from './turns.js'
import type {VolumeFrontend} from './volume-frontend.js'
import {checkRoomForSnapshot, type VolumeSettings} from './volume-settings.js'

export interface VolumeSnapshotsHost extends Members {
  readonly settings: VolumeSettings
  readonly frontend: VolumeFrontend
  /** Steps that change what the replicas are, or who uses the volume, happen one after the other. */
  readonly inTurn: InTurn
  /** Throws while a backup is being restored: then the volume cannot be `what`. */
  checkIdle(what: string): void
}

/** Snapshots of one volume, and what else gives its replicas a new head: as its frontend, settings and restores allow, one after the other. */
export class VolumeSnapshots {
  readonly #host: VolumeSnapshotsHost

  constructor(host: VolumeSnapshotsHost) {
    this.#host = host
  }

  /**
   * Takes a snapshot of the volume while it is being used; see takeSnapshot(). Without a name it gets one. Returns the name.
   * USAGE for a name that cannot be one, CONFLICT when there is one of that name or a user's would exceed a limit. With `freeze` the file
   * systems on the volume are frozen meanwhile: UNSUPPORTED where that is impossible; see Frontend.freeze().
   */
  async take(name: string | undefined, labels: Readonly<Record<string, string>>, {userCreated = true, freeze = false}: SnapshotOptions = {}): Promise<string> {
    const request = {name: name ?? randomUUID(), labels, userCreated, created: now()}
    await this.#host.inTurn(async () => {
      const {volume, frontend, settings} = this.#host
      this.#host.checkIdle('frozen in a snapshot')
      await volume.recorded()
      if (userCreated) await checkRoomForSnapshot(this.#host, settings)
      const frozen = freeze ? await frontend.freeze() : undefined
      try {
        await takeSnapshot(this.#host, request)
      } finally {
        await frozen?.thaw()
      }
    })
    return request.name
  }

  /**
   * Makes the volume larger while it is being used; see expandVolume(). The size that it has is success; USAGE for a smaller one or
   * one that is not a multiple of 4096. Initiators see it as their protocol has it; what cannot be told leaves a `notice` with the frontend.
   */
  async expand(sizeBytes: number): Promise<void> {
    await this.#host.inTurn(async () => {
      const {volume, frontend, log} = this.#host
      if (sizeBytes === volume.sizeBytes) return
      if (sizeBytes < volume.sizeBytes) throw new LonghornError('USAGE', `the volume has ${volume.sizeBytes} bytes and cannot shrink to ${sizeBytes}`)
      this.#host.checkIdle('expanded')
      if (sizeBytes % 4096 !== 0) throw new LonghornError('USAGE', `the volume cannot become ${sizeBytes} bytes large: expected a multiple of 4096`)
      await volume.recorded()
      await expandVolume(this.#host, sizeBytes, now())
      log.info({sizeBytes}, 'expanded')
      await frontend.resize(sizeBytes)
    })
  }

  /** Makes the volume what it was at a snapshot. CONFLICT while a frontend is up: whoever uses the volume would not notice. */
  async revert(name: string): Promise<void> {
    await this.#host.inTurn(async () => {
      this.#host.frontend.checkDown('reverting the volume')
      this.#host.checkIdle('reverted')
      await this.#host.volume.recorded()
      await revertVolume(this.#host, `volume-snap-${name}.img`, now())
    })
  }
}

export interface SnapshotOptions {
  /** Counts against the limits. */
  readonly userCreated?: boolean
  readonly freeze?: boolean
}

/** RFC 3339, UTC, whole seconds. */
function now(): string {
  return new Date().toISOString().replace(/\.\d+Z$/, 'Z')
}
