// What the daemons' commands hand to the processes that they become. Plain data: it travels as JSON.
import type {IscsiSettings} from '../engine/frontends/frontend.js'
import type {VolumeSettings} from '../engine/volume-settings.js'
import type {Address, TcpAddress} from '../lib/address.js'

export interface ReplicaRequest {
  readonly directory: string
  readonly sizeBytes?: number | undefined
  readonly listen: TcpAddress
  readonly receiverPorts?: number | undefined
  readonly volumeName?: string | undefined
  readonly instanceName?: string | undefined
  readonly syncAgent: boolean
  readonly settings: {readonly markOnUnmap: boolean; readonly snapshotMaxCount: number; readonly snapshotMaxSizeBytes: number}
  /** Flags that have no effect, for the log. */
  readonly ignored: readonly string[]
}

export interface EngineRequest {
  readonly volume: string
  readonly sizeBytes: number
  readonly currentSizeBytes?: number | undefined
  readonly replicas: readonly string[]
  readonly leastReplicas: number
  readonly salvage: boolean
  readonly writeThrough: boolean
  readonly replicaTimeoutMs: number
  readonly listen: TcpAddress
  /** Take the place of the engine that runs; `from` undefined: wherever it is. */
  readonly upgrade?: {readonly from?: TcpAddress | undefined} | undefined
  readonly frontend?: string | undefined
  readonly frontendListen?: Address | undefined
  /** How the frontend blockdev makes its device: the name of a way, or `auto`. */
  readonly attach: string
  readonly iscsi: IscsiSettings
  readonly instanceName?: string | undefined
  readonly settings: VolumeSettings
  /** Flags that have no effect, for the log. */
  readonly ignored: readonly string[]
}
