import {LonghornError} from '../../src/lib/errors.js'
import {longhornCommand, longhornProgram} from './daemon.js'
import type {Screen} from './screen.js'
import {runTool, type Argv} from './tool-process.js'

/** Runs commands in front of the user: first what is run, then what it printed. Returns that. Throws IO when it fails. */
export class Shell {
  constructor(readonly screen: Screen) {}

  async run(argv: Argv, signal: AbortSignal): Promise<string> {
    this.screen.command(argv)
    return this.#run(argv, signal)
  }

  /** A line for the shell, as it is. */
  async script(line: string, signal: AbortSignal): Promise<string> {
    this.screen.line(line)
    return this.#run(['sh', '-c', line], signal)
  }

  async longhorn(args: readonly string[], signal: AbortSignal): Promise<string> {
    this.screen.command(longhornCommand(args))
    return this.#run(longhornProgram(args), signal, `longhorn ${args.join(' ')}`)
  }

  async #run(argv: Argv, signal: AbortSignal, name: string = argv[0]): Promise<string> {
    const {ok, stdout, stderr} = await runTool(argv, signal)
    this.screen.output(stdout)
    if (!ok) throw new LonghornError('IO', `${name} failed: ${stderr}`)
    return stdout
  }
}
