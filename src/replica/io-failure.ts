import {errnoOf, LonghornError, messageOf} from '../lib/errors.js'
import {errnoText} from '../lib/sys/system-error.js'

/**
 * What the world is told when the disk refused: `doing` is ours ("writing 4096 bytes at 0 to …/volume-head-000.img").
 * NO_SPACE for a full disk or quota, with the words that upstream's engine looks for; IO for everything else.
 */
export function ioFailure(doing: string, error: unknown): LonghornError {
  if (error instanceof LonghornError) return error
  const code = errnoOf(error)
  const details = {errno: code ?? 'unknown'}
  if (code === 'ENOSPC' || code === 'EDQUOT') {
    return new LonghornError('NO_SPACE', `${doing}: ${errnoText('ENOSPC')}`, details, {cause: error})
  }
  return new LonghornError('IO', `${doing}: ${code === undefined ? messageOf(error) : errnoText(code)}`, details, {cause: error})
}
