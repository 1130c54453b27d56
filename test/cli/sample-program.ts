// A command line with a single command, for the tests of what BaseCommand promises.
import {setTimeout as sleep} from 'node:timers/promises'
import {fileURLToPath} from 'node:url'
import {Args, Flags} from '@oclif/core'
import {BaseCommand} from '../../src/cli/base-command.js'
import {configured} from '../../src/cli/config-file.js'
import {finish} from '../../src/cli/main.js'
import {LonghornError} from '../../src/lib/errors.js'
import {parseSize} from '../../src/lib/sizes.js'

class Sample extends BaseCommand {
  static override summary = 'Do one of several things.'
  static override args = {action: Args.string({required: true, options: ['print', 'fail', 'bug', 'wait', 'leave', 'stubborn']})}
  static override flags = {
    manager: Flags.string({...configured('manager')}),
    retries: Flags.integer({...configured('retries', Number)}),
    size: Flags.custom<number>({parse: async text => parseSize(text)})(),
  }

  async run(): Promise<object> {
    const {args, flags} = await this.parse(Sample)
    switch (args.action) {
      case 'fail':
        throw new LonghornError('NO_SPACE', 'replica 10.0.0.3:\nno space left', {replica: '10.0.0.3'})
      case 'bug':
        throw new TypeError('x is not a function')
      case 'wait':
        return this.#wait()
      case 'leave':
        return this.#wait().catch((error: unknown) => {
          throw new LonghornError('INTERRUPTED', 'the work goes on without this command', {}, {cause: error})
        })
      case 'stubborn':
        return this.#ignoreSignals()
      default:
        this.log(`manager=${flags.manager} retries=${flags.retries} size=${flags.size}`)
        return {...flags, big: 2n ** 63n}
    }
  }

  async #wait(): Promise<object> {
    try {
      process.stderr.write('waiting\n')
      await sleep(60_000, undefined, {signal: this.signal})
      return {}
    } finally {
      process.stderr.write('cleaned up\n')
    }
  }

  async #ignoreSignals(): Promise<object> {
    this.signal.addEventListener('abort', () => process.stderr.write('heard\n'))
    process.stderr.write('waiting\n')
    await sleep(60_000)
    return {}
  }
}

const argv = process.argv.slice(2)
await finish(argv, Sample.run(argv, fileURLToPath(new URL('../../../', import.meta.url))))
