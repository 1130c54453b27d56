// What the quickstart shows. On a terminal with bold, colour and a spinner, elsewhere the same words in plain lines.
import {Chalk} from 'chalk'
import {startProgress, type Progress} from '../../src/cli/progress.js'
import {shellWords, wrapCommand} from './shell-words.js'

const DEFAULT_COLUMNS = 100

export class Screen {
  readonly #stream: NodeJS.WriteStream
  readonly #style: InstanceType<typeof Chalk>
  #step = 0
  #progress: Progress | undefined

  constructor(stream: NodeJS.WriteStream = process.stdout) {
    this.#stream = stream
    this.#style = new Chalk({level: isDecorated(stream) ? 1 : 0})
  }

  /** A numbered heading. */
  step(title: string): void {
    this.#step++
    this.#print(`\n${this.#style.bold(`${this.#step}. ${title}`)}`)
  }

  say(text: string): void {
    this.#print(text)
  }

  /** Something that has been shown to hold. */
  good(text: string): void {
    this.#print(`${this.#style.green(isDecorated(this.#stream) ? '✔' : 'ok:')} ${text}`)
  }

  fail(text: string): void {
    this.#print(`${this.#style.red.bold('Error:')} ${text}`)
  }

  /** A command, as it can be typed. `suffix` is what the shell needs to do the same, such as ` &`. */
  command(argv: readonly string[], suffix = ''): void {
    const columns = Math.max(40, this.#stream.columns || DEFAULT_COLUMNS)
    const lines = wrapCommand(shellWords(argv), columns - '$ '.length - ' \\'.length)
    this.line(lines.join(' \\\n    ') + suffix)
  }

  /** A line as it is typed into a shell. */
  line(text: string): void {
    this.#print(`${this.#style.dim('$')} ${this.#style.cyan(text)}`)
  }

  /** What a command has printed. */
  output(text: string): void {
    if (text !== '') this.#print(text.replace(/^/gm, '  '))
  }

  /** A spinner whose text can be replaced; without a terminal its first and its last line. */
  async progress(text: string): Promise<Progress> {
    this.#progress = await startProgress(text, isDecorated(this.#stream) ? this.#stream : plainOf(this.#stream))
    return this.#progress
  }

  #print(text: string): void {
    // Of a step that was given up: whoever showed it may never come back to take it away.
    this.#progress?.[Symbol.dispose]()
    this.#progress = undefined
    this.#stream.write(`${text}\n`)
  }
}

function isDecorated(stream: NodeJS.WriteStream): boolean {
  return stream.isTTY && !process.env.NO_COLOR && process.env.TERM !== 'dumb'
}

/** The same stream, which says that it is no terminal. */
function plainOf(stream: NodeJS.WriteStream): NodeJS.WriteStream {
  return Object.create(stream, {isTTY: {value: false}, write: {value: stream.write.bind(stream)}}) as NodeJS.WriteStream
}
