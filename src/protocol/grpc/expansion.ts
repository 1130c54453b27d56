// The one error of upstream's with a structure: ReplicaExpand answers INTERNAL with this as JSON in its text.
import {status as Status} from '@grpc/grpc-js'
import {RpcError, StatusError} from './status.js'

const CODES = [
  'ResultUnknown',
  'FunctionFailedWithoutRollback',
  'FunctionFailedRollbackSucceeded',
  'FunctionFailedRollbackFailed',
] as const

/** What became of a replica whose expansion failed. The engine goes on with a replica only after FunctionFailedRollbackSucceeded. */
export interface ExpansionFailure {
  readonly code: (typeof CODES)[number]
  readonly message: string
  readonly rollbackMessage: string
}

/** What a replica throws from ReplicaExpand. */
export function expansionError({code, message, rollbackMessage}: ExpansionFailure): StatusError {
  return new StatusError(Status.INTERNAL, JSON.stringify({code, message, rollbackMessage}))
}

/** What a failed ReplicaExpand says; undefined when the error is of another kind. */
export function expansionFailureOf(error: unknown): ExpansionFailure | undefined {
  if (!(error instanceof RpcError) || error.status !== Status.INTERNAL) return undefined
  let parsed: Partial<Record<keyof ExpansionFailure, unknown>> | null
  try {
    parsed = JSON.parse(error.text) as typeof parsed
  } catch {
    return undefined
  }
  const code = CODES.find(known => known === parsed?.code)
  if (code === undefined) return undefined
  return {code, message: textOf(parsed?.message), rollbackMessage: textOf(parsed?.rollbackMessage)}
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : ''
}
