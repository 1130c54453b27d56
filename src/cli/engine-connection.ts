import {Flags} from '@oclif/core'
import {configured} from './config-file.js'
import {parseListen} from './flags.js'
import {LonghornError} from '../lib/errors.js'
import {connect, type RpcClient} from '../protocol/grpc/client.js'
import {ControllerServiceDefinition} from '../protocol/proto/generated/controller.js'

export type EngineClient = RpcClient<typeof ControllerServiceDefinition>

/** Flags of the commands that talk to one engine. */
export const engineFlags = {
  engine: Flags.string({
    ...configured('engine'),
    helpValue: 'HOST:PORT',
    description: "address of the volume's engine; localhost:9501 when nothing else is set",
  }),
}

/** A client for the engine at `address`. With `volume`, an engine of another volume refuses to answer. */
export function connectEngine(address: string | undefined, volume?: string): EngineClient {
  return connect(ControllerServiceDefinition, {
    peer: 'engine',
    address: parseListen(address ?? 'localhost:9501', '--engine'),
    identity: {volumeName: volume},
    timeoutMs: 30_000,
  })
}

/** A part of an answer that must be there. Throws PROTOCOL. */
export function present<T>(value: T | undefined, what: string): T {
  if (value === undefined) throw new LonghornError('PROTOCOL', `the engine's answer lacks ${what}`)
  return value
}
