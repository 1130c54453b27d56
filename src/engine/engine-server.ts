import {setTimeout as sleep} from 'node:timers/promises'
import type {Address, TcpAddress} from '../lib/address.js'
import {Cleanup} from '../lib/cleanup.js'
import {isKind, LonghornError} from '../lib/errors.js'
import {checkFree} from '../lib/net/check-free.js'
import {Health} from '../protocol/grpc/health.js'
import {RpcServer} from '../protocol/grpc/server.js'
import type {Engine, EngineOptions} from './engine.js'
import {EngineSlot} from './engine-slot.js'
import {takeOver} from './handover/take-over.js'
import {slotService} from './slot-service.js'
import {findFrontend} from './volume-frontend.js'

export interface EngineServerOptions extends EngineOptions {
  /** Where the control service listens. */
  readonly listen: TcpAddress
  /** The frontend to start; undefined: none until somebody asks for one. */
  readonly frontend?: string | undefined
  readonly frontendListen?: Address | undefined
  readonly instanceName?: string | undefined
  /** Where an engine of this volume may be running that this one is to take the place of: the first that is there. Started anew when none is. */
  readonly takeOverFrom?: readonly TcpAddress[] | undefined
  /** Ends this process at once, without closing anything; called when another engine has taken its place. Without it none can. */
  readonly gone?: (() => never) | undefined
}

export interface EngineServer extends AsyncDisposable {
  /** The engine of the volume. CONFLICT while the volume is not started; see `slot`. */
  readonly engine: Engine
  readonly slot: EngineSlot
  /** Where the control service really listens. */
  readonly address: Address
  /** Shuts the frontend down, closes the replicas so that they are clean, stops. Safe twice. */
  close(): Promise<void>
}

/** How long the engine before this one may keep its port when it has handed over. */
const PORT_MS = 30_000
/** How long one that died may take to be gone. */
const END_MS = 10_000
const PORT_RETRY_MS = 20

const VOLUME_NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]+$/

/** Throws USAGE for a name that upstream, a path or an IQN could not hold. */
export function checkVolumeName(name: string): void {
  if (name.length <= 64 && VOLUME_NAME.test(name)) return
  throw new LonghornError('USAGE', `invalid volume name "${name}": 2 to 64 letters, digits, "_", "." and "-", the first a letter or digit`)
}

/**
 * One engine process: replicas, control service, frontend, in that order; whoever can reach the frontend can rely on the rest.
 * Everything that can be wrong with the options is found out before a replica is opened. Without replicas it waits for
 * somebody to name them (VolumeStart); the frontend then comes up with them.
 */
export async function startEngineServer(options: EngineServerOptions, signal?: AbortSignal): Promise<EngineServer> {
  checkVolumeName(options.volume)
  const kind = options.frontend === undefined ? undefined : findFrontend(options.frontends, options.frontend)
  await using undo = new Cleanup()
  const slot = undo.add(new EngineSlot(options))
  const serve = async (engine: Engine): Promise<void> => {
    if (options.frontend !== undefined) await engine.startFrontend(options.frontend, options.frontendListen)
  }
  const taken = options.takeOverFrom && (await takeOver({...options, settings: slot.settings}, options.takeOverFrom, signal))
  if (taken === undefined) {
    // An engine that is started twice must find that out before it takes the replicas away from the one that runs.
    const check = async (): Promise<void> => {
      await checkFree(options.listen)
      await kind?.checkFree?.(options.volume, options.frontendListen)
    }
    // One that was to be taken over and does not answer may be about to end.
    await (options.takeOverFrom === undefined ? check() : whenFree(check, END_MS))
    // The frontend comes last: whoever reaches it can rely on the rest.
    if (options.replicas.length > 0) await slot.start(options, async () => undefined, signal)
    else options.log.info('waiting for somebody to name the replicas of the volume')
  } else {
    slot.adopt(taken)
  }
  const health = new Health()
  const identity = {volumeName: options.volume, instanceName: options.instanceName, role: 'controller' as const}
  const services = [slotService(slot, serve, options.gone), health.service]
  const start = (): Promise<RpcServer> => RpcServer.start({listen: options.listen, services, identity, log: options.log})
  const rpc = undo.add(await (taken === undefined ? start() : whenFree(start, PORT_MS)))
  if (slot.engine !== undefined) await serve(slot.engine)
  health.set('SERVING')
  const owned = undo.move()
  let closed: Promise<void> | undefined
  const close = (): Promise<void> => (closed ??= owned.close())
  return {
    get engine() {
      if (slot.engine === undefined) throw new LonghornError('CONFLICT', `volume ${options.volume} is not started`)
      return slot.engine
    },
    slot,
    address: rpc.address,
    close,
    [Symbol.asyncDispose]: close,
  }
}

/** What is in use may be that of the engine before this one, which is ending: tries until it is free. */
async function whenFree<T>(start: () => Promise<T>, timeoutMs: number): Promise<T> {
  for (const deadline = performance.now() + timeoutMs; ; await sleep(PORT_RETRY_MS)) {
    try {
      return await start()
    } catch (error) {
      if (!isKind(error, 'CONFLICT') || performance.now() > deadline) throw error
    }
  }
}
