import type {VersionInfo} from '../../lib/version-info.js'
import {toSize} from '../../protocol/grpc/fields.js'
import {connect} from '../../protocol/grpc/client.js'
import type {Identity} from '../../protocol/grpc/identity.js'
import {ControllerServiceDefinition} from '../../protocol/proto/generated/controller.js'
import {present} from '../engine-connection.js'
import {parseEngineUrl} from './upstream-command.js'

const CALL_TIMEOUT_MS = 30_000

/** What the engine at `url` says of itself. Throws UNREACHABLE when there is none, and USAGE for what is no URL. */
export async function askEngineVersion(url: string, identity: Identity, signal: AbortSignal): Promise<VersionInfo> {
  await using engine = connect(ControllerServiceDefinition, {peer: 'engine', address: parseEngineUrl(url), identity, timeoutMs: CALL_TIMEOUT_MS})
  const {version, gitCommit, buildDate, ...levels} = present((await engine.versionDetailGet({}, {signal})).version, 'the version')
  const level = (name: keyof typeof levels): number => toSize(levels[name], `VersionOutput: ${name}`, 'PROTOCOL')
  return {
    version,
    gitCommit,
    buildDate,
    cliAPIVersion: level('cliAPIVersion'),
    cliAPIMinVersion: level('cliAPIMinVersion'),
    controllerAPIVersion: level('controllerAPIVersion'),
    controllerAPIMinVersion: level('controllerAPIMinVersion'),
    dataFormatVersion: level('dataFormatVersion'),
    dataFormatMinVersion: level('dataFormatMinVersion'),
  }
}
