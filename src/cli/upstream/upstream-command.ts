import {Flags} from '@oclif/core'
import {LonghornError} from '../../lib/errors.js'
import type {TcpAddress} from '../../lib/address.js'
import {connect} from '../../protocol/grpc/client.js'
import {ControllerServiceDefinition} from '../../protocol/proto/generated/controller.js'
import {BaseCommand} from '../base-command.js'
import type {EngineClient} from '../engine-connection.js'
import {parseListen} from '../flags.js'

/** What upstream's commands know about the engine that they talk to. */
export interface EngineFlags {
  readonly url: string
  readonly 'volume-name'?: string | undefined
  readonly 'engine-instance-name'?: string | undefined
}

const CALL_TIMEOUT_MS = 180_000

export const upstreamFlags = {
  url: Flags.string({default: 'http://localhost:9501', helpGroup: 'GLOBAL', description: 'where the engine is: http://HOST:PORT'}),
  'volume-name': Flags.string({helpGroup: 'GLOBAL', description: 'name of the volume; engines and replicas of another one are refused'}),
  'engine-instance-name': Flags.string({helpGroup: 'GLOBAL', description: 'name of the engine instance; another one is refused'}),
}

/**
 * A command with the name, the arguments and the output of one of upstream's, so that programs that run upstream's
 * `longhorn` can run this one. It prints what upstream's does, whatever output is set for the commands of our own.
 */
export abstract class UpstreamCommand extends BaseCommand {
  static override enableJsonFlag = false

  static override baseFlags = {
    ...upstreamFlags,
    debug: BaseCommand.baseFlags.debug,
  } as unknown as typeof BaseCommand.baseFlags & typeof upstreamFlags

  override jsonEnabled(): boolean {
    return false
  }

  protected engine(flags: EngineFlags): EngineClient {
    return connect(ControllerServiceDefinition, {
      peer: 'engine',
      address: parseEngineUrl(flags.url),
      identity: {volumeName: flags['volume-name'], instanceName: flags['engine-instance-name']},
      timeoutMs: CALL_TIMEOUT_MS,
    })
  }

  /** JSON as upstream's commands print it: see goJson(). */
  protected printJson(value: object): void {
    this.log(goJson(value))
  }
}

/** `http://host:port`, `tcp://host:port`, either without its scheme, or with `/v1` behind. Throws USAGE. */
export function parseEngineUrl(url: string): TcpAddress {
  const text = url.replace(/^(http|tcp):\/\//, '').replace(/\/v1\/?$|\/$/, '')
  try {
    return parseListen(text, '--url')
  } catch (error) {
    throw new LonghornError('USAGE', `--url "${url}": expected http://HOST:PORT`, {}, {cause: error})
  }
}

/** On one line. */
export function goCompactJson(value: object): string {
  return escaped(JSON.stringify(value))
}

/** Indented with tabs, with `<`, `>` and `&` escaped, as Go writes JSON. Maps must have their keys in order already; see inKeyOrder(). */
export function goJson(value: object): string {
  return escaped(JSON.stringify(value, undefined, '\t'))
}

function escaped(json: string): string {
  return json.replace(/[<>&\u2028\u2029]/g, character => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`)
}

/** A map as Go writes it: sorted by the bytes of its keys. */
export function inKeyOrder<T>(entries: Iterable<readonly [string, T]>): Record<string, T> {
  return Object.fromEntries([...entries].sort(([a], [b]) => Buffer.compare(Buffer.from(a), Buffer.from(b))))
}
