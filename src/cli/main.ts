import {run, settings} from '@oclif/core'
import {LonghornError} from '../lib/errors.js'
import {printFailure} from './failure.js'
import {outputFormat, type OutputFormat} from './output-format.js'
import {readCommandLine} from './upstream/command-line.js'

/** Runs the command that `argv` names and ends the process with its exit code. `root` is where package.json is. */
export async function main(argv: readonly string[], root: string): Promise<never> {
  // Commands are run as they were compiled, never from source, whatever compilers happen to be installed.
  settings.enableAutoTranspile = false
  const line = readCommandLine(helpFirst(argv))
  return finish(line.argv, run(line.argv, {root}), line.upstream)
}

/**
 * Waits for a command, reports its failure, and exits. The process is ended rather than left to drain: the command has
 * returned, so whatever connection still lingers must not keep a cron job waiting. `upstream`: with upstream's exit codes,
 * and errors as text.
 */
export async function finish(argv: readonly string[], command: Promise<unknown>, upstream = false): Promise<never> {
  let exitCode = 0
  try {
    await command
    // A command that did its work and has bad news.
    exitCode = Number(process.exitCode ?? 0)
  } catch (error) {
    const code = printFailure(error, {format: upstream ? 'text' : await formatForErrors(argv), debug: wantsDebug(argv)})
    exitCode = upstream ? upstreamExitCode(code) : code
  }
  await new Promise<void>(resolve => {
    process.stdout.write('', () => resolve())
  })
  process.exit(exitCode)
}

/** Scripts that know upstream's commands know 1 for every failure, but for the one that means that there is no data. */
function upstreamExitCode(code: number): number {
  return [0, new LonghornError('NO_DATA', '').exitCode, new LonghornError('INTERRUPTED', '').exitCode].includes(code) ? code : 1
}

/** `longhorn help volume create` is `longhorn volume create --help`. */
function helpFirst(argv: readonly string[]): string[] {
  return argv[0] === 'help' ? [...argv.slice(1), '--help'] : [...argv]
}

/** The config file may be the very thing that is broken; the error that says so is printed as text then. */
async function formatForErrors(argv: readonly string[]): Promise<OutputFormat> {
  try {
    return await outputFormat(argv, process.env)
  } catch {
    return 'text'
  }
}

function wantsDebug(argv: readonly string[]): boolean {
  return argv.includes('--debug') || ['1', 'true'].includes(process.env.LONGHORN_DEBUG ?? '')
}
