import {run, settings} from '@oclif/core'
import {printFailure} from './failure.js'
import {outputFormat, type OutputFormat} from './output-format.js'

/** Runs the command that `argv` names and ends the process with its exit code. `root` is where package.json is. */
export async function main(argv: readonly string[], root: string): Promise<never> {
  // Commands are run as they were compiled, never from source, whatever compilers happen to be installed.
  settings.enableAutoTranspile = false
  return finish(argv, run(helpFirst(argv), {root}))
}

/**
 * Waits for a command, reports its failure, and exits. The process is ended rather than left to drain: the command has
 * returned, so whatever connection still lingers must not keep a cron job waiting.
 */
export async function finish(argv: readonly string[], command: Promise<unknown>): Promise<never> {
  let exitCode = 0
  try {
    await command
    // A command that did its work and has bad news.
    exitCode = Number(process.exitCode ?? 0)
  } catch (error) {
    exitCode = printFailure(error, {format: await formatForErrors(argv), debug: wantsDebug(argv)})
  }
  await new Promise<void>(resolve => {
    process.stdout.write('', () => resolve())
  })
  process.exit(exitCode)
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
