import {LonghornError} from '../lib/errors.js'
import {Engine, type EngineOptions} from './engine.js'
import {takeTurns} from './turns.js'
import {defaultSettings, type VolumeSettings} from './volume-settings.js'

/** What is said when a volume is started: the rest is given once, when the process is. */
export interface StartRequest {
  readonly replicas: readonly string[]
  readonly sizeBytes?: number | undefined
  readonly currentSizeBytes?: number | undefined
}

/**
 * The volume that an engine process may serve: started with the process, or later when somebody names its replicas, and shut
 * down and started again as often as is wanted. Starts and shutdowns happen one after the other.
 */
export class EngineSlot implements AsyncDisposable {
  /** Stay from one start to the next. */
  readonly settings: VolumeSettings
  readonly #options: Omit<EngineOptions, 'settings'>
  #engine: Engine | undefined
  readonly #inTurn = takeTurns()
  #closed: Promise<void> | undefined

  constructor(options: EngineOptions) {
    this.#options = options
    this.settings = options.settings ?? defaultSettings()
  }

  get volumeName(): string {
    return this.#options.volume
  }

  /** The one that serves; undefined while none does. */
  get engine(): Engine | undefined {
    return this.#engine
  }

  /**
   * Opens the replicas; `opened` is then called, and when it fails they are closed again. Success, with nothing done, when the volume
   * has replicas already. Throws as Engine.start() does.
   */
  start(request: StartRequest, opened: (engine: Engine) => Promise<void>, signal?: AbortSignal): Promise<void> {
    return this.#inTurn(async () => {
      if (this.#closed !== undefined) throw new LonghornError('CONFLICT', 'the engine is shutting down')
      if (this.#engine !== undefined && this.#engine.replicas.length > 0) return
      await this.#end()
      const {replicas, sizeBytes = this.#options.sizeBytes, currentSizeBytes} = request
      const engine = await Engine.start({...this.#options, replicas, sizeBytes, currentSizeBytes, settings: this.settings}, signal)
      this.#engine = engine
      try {
        await opened(engine)
      } catch (error) {
        // The reason of the start is the one that counts.
        await this.#end().catch(() => undefined)
        throw error
      }
    })
  }

  /** Goes on with an engine that was running in another process. Nothing is started yet. */
  adopt(engine: Engine): void {
    this.#engine = engine
  }

  /** Shuts the frontend down and closes the replicas. Success when nothing is started. */
  shutdown(): Promise<void> {
    return this.#inTurn(() => this.#end())
  }

  /** shutdown(), for good. Safe twice. */
  close(): Promise<void> {
    this.#closed ??= this.shutdown()
    return this.#closed
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  async #end(): Promise<void> {
    const engine = this.#engine
    try {
      await engine?.close()
    } finally {
      this.#engine = undefined
    }
  }
}
