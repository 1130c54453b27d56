import {LonghornError} from '../../src/lib/errors.js'
import {ToolProcess, type Argv} from './tool-process.js'

const PROMPT = 'qemu-io> '

/** QEMU's disk exerciser: it reads commands and prints a prompt when it is ready for the next. */
export class QemuIo {
  readonly #tool: ToolProcess
  #output = ''
  #onPrompt: (() => void) | undefined

  private constructor(uri: string, cwd: string) {
    this.#tool = new ToolProcess(QemuIo.command(uri), cwd)
    this.#tool.child.stdout.setEncoding('utf8').on('data', (text: string) => {
      this.#output += text
      if (this.#output.endsWith(PROMPT)) this.#onPrompt?.()
    })
  }

  static command(uri: string): Argv {
    return ['qemu-io', '-f', 'raw', '-t', 'writeback', uri]
  }

  static async start(uri: string, cwd: string): Promise<QemuIo> {
    const qemu = new QemuIo(uri, cwd)
    try {
      await qemu.#answer()
    } catch (error) {
      qemu.kill()
      throw error
    }
    return qemu
  }

  /** Runs one of its commands. Throws IO when it does not say that it was done. */
  async run(command: string): Promise<void> {
    this.#output = ''
    this.#tool.child.stdin.write(`${command}\n`)
    const said = await this.#answer()
    if (!/^(wrote|read) (\d+)\/\2 bytes/m.test(said)) throw new LonghornError('IO', `qemu-io ${command}: ${said.trim()}`)
  }

  end(): Promise<void> {
    return this.#tool.end()
  }

  kill(): void {
    this.#tool.kill()
  }

  async #answer(): Promise<string> {
    const prompt = new Promise<void>(resolve => {
      if (this.#output.endsWith(PROMPT)) resolve()
      this.#onPrompt = resolve
    })
    await this.#tool.while(prompt)
    return this.#output.slice(0, -PROMPT.length)
  }
}
