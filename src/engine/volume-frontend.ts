import type {Address} from '../lib/address.js'
import {LonghornError, messageOf} from '../lib/errors.js'
import type {Log} from '../lib/log.js'
import type {Frontend, FrontendHandover, FrontendKind, FrontendOptions, IscsiSettings} from './frontends/frontend.js'
import type {Volume} from './volume.js'

/** What it takes to serve a volume. */
export interface ServeOptions {
  readonly volume: Volume
  /** The kinds of frontend there are. */
  readonly frontends: readonly FrontendKind[]
  readonly iscsi?: IscsiSettings | undefined
  readonly log: Log
}

export interface VolumeFrontendHost extends ServeOptions {
  /** Steps that change what the replicas are, or who uses the volume, happen one after the other. */
  inTurn<T>(step: () => Promise<T>): Promise<T>
  /** Throws when the volume must not be served. In turn. */
  checkUsable(): Promise<void>
}

/** A frontend that is up. */
export interface Serving {
  readonly kind: FrontendKind
  readonly server: Frontend
}

/** It as the outside sees it. */
export interface FrontendInfo {
  readonly name: string
  readonly endpoint: string
  /** Why its device has another size than the volume; ''. */
  readonly notice: string
}

/** How long requests in flight may take to finish when a frontend, or the engine, stops. */
export const DRAIN_MS = 5000

/** The one way in which a volume is served at a time, or none. */
export class VolumeFrontend {
  readonly #host: VolumeFrontendHost
  #up: Serving | undefined
  #notice = ''

  constructor(host: VolumeFrontendHost) {
    this.#host = host
  }

  /** What is up. */
  get serving(): Serving | undefined {
    return this.#up
  }

  get name(): string | undefined {
    return this.#up?.kind.name
  }

  get info(): FrontendInfo | undefined {
    return this.#up && {name: this.#up.kind.name, endpoint: this.#up.server.endpoint, notice: this.#notice}
  }

  /** Throws CONFLICT while one is up: it has to be shut down before `what`. */
  checkDown(what: string): void {
    if (this.#up !== undefined) throw new LonghornError('CONFLICT', `frontend ${this.#up.kind.name} is up; shut it down before ${what}`)
  }

  /** See Engine.startFrontend(). */
  async start(name: string, listen: Address | undefined): Promise<void> {
    const kind = findFrontend(this.#host.frontends, name)
    await this.#host.inTurn(async () => {
      if (this.#up?.kind === kind) return
      this.checkDown(`starting ${name}`)
      await this.#host.checkUsable()
      const server = await kind.open(optionsFor(this.#host, listen))
      this.goOn({kind, server})
      this.#host.log.info({frontend: name, endpoint: server.endpoint}, 'frontend up')
    })
  }

  /** From now on this one is up. */
  goOn(serving: Serving): void {
    this.#up = serving
    this.#notice = ''
  }

  /** Success when nothing is up. */
  stop(): Promise<void> {
    return this.#host.inTurn(async () => {
      await this.#up?.server.close(DRAIN_MS)
      this.#up = undefined
    })
  }

  /** See Frontend.freeze(). Nobody uses a volume without a frontend: then there is nothing to thaw. Throws UNSUPPORTED. In turn. */
  async freeze(): Promise<{thaw(): Promise<void>} | undefined> {
    if (this.#up === undefined) return undefined
    const {kind, server} = this.#up
    if (server.freeze !== undefined) return server.freeze()
    throw new LonghornError('UNSUPPORTED', `with frontend ${kind.name} the file system is not mounted by this engine: freeze it where it is (fsfreeze), and ask without --freeze`)
  }

  /** Tells its initiators that the volume has become larger. What cannot be told leaves a notice. In turn. */
  async resize(sizeBytes: number): Promise<void> {
    const server = this.#up?.server
    if (server?.resize === undefined) return
    try {
      await server.resize(sizeBytes)
      this.#notice = ''
    } catch (error) {
      this.#notice = `${server.endpoint} still has its old size: ${messageOf(error)}`
      this.#host.log.warn({reason: messageOf(error)}, 'the volume is larger, and the device on this host is not yet')
    }
  }
}

/**
 * Prepares to go on with the frontend of another engine; what this resolves to starts it, at once. Throws UNSUPPORTED for a kind that nobody
 * can go on with, USAGE for an unknown one, and as FrontendKind.adopt() does.
 */
export async function adoptFrontend(options: ServeOptions, name: string, from: FrontendHandover): Promise<() => Serving> {
  const kind = findFrontend(options.frontends, name)
  const serve = await kind.adopt?.(optionsFor(options, undefined), from)
  if (serve === undefined) throw new LonghornError('UNSUPPORTED', `frontend ${name} cannot be taken over`)
  return () => ({kind, server: serve()})
}

/** The kind of that name. Throws USAGE with the names there are. */
export function findFrontend(kinds: readonly FrontendKind[], name: string): FrontendKind {
  const kind = kinds.find(one => one.name === name)
  if (kind !== undefined) return kind
  throw new LonghornError('USAGE', `unknown frontend "${name}": expected ${kinds.map(one => one.name).join(', ')}`)
}

function optionsFor({volume, iscsi, log}: ServeOptions, listen: Address | undefined): FrontendOptions {
  return {volume: volume.name, device: volume, listen, log, iscsi}
}
