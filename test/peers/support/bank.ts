// A database that is written all the time, and whose content tells whether it is right: transaction N adds row N and moves
// money between accounts. SQLite's own program does it, and says when a COMMIT has returned.
import {spawn, type ChildProcessWithoutNullStreams} from 'node:child_process'
import {once} from 'node:events'
import {setTimeout as sleep} from 'node:timers/promises'
import {until} from '../../support/until.js'
import {tool} from './tool.js'

const ACCOUNTS = 10
/** Transactions that the program is given ahead of what it has said. */
const AHEAD = 2
const END_TIMEOUT_MS = 60_000

/**
 * What is promised for a COMMIT that has returned differs: with a rollback journal SQLite wants EXTRA to have it survive
 * the loss of power, with a write-ahead log FULL is enough.
 */
export type Journal = 'wal' | 'delete'
const SYNCHRONOUS: Record<Journal, string> = {wal: 'FULL', delete: 'EXTRA'}

export class Bank {
  readonly #child: ChildProcessWithoutNullStreams
  readonly #closed: Promise<unknown>
  #given: number
  #committed: number
  #said = ''
  #complaints = ''
  #stopping = false

  private constructor(path: string, journal: Journal, committed: number) {
    this.#committed = committed
    this.#given = committed
    this.#child = spawn('sqlite3', ['-batch', '-bail', path], {stdio: 'pipe'})
    this.#closed = once(this.#child, 'close')
    this.#child.stdin.on('error', () => undefined)
    this.#child.stderr.setEncoding('utf8').on('data', (text: string) => (this.#complaints += text))
    this.#child.stdout.setEncoding('utf8').on('data', (text: string) => this.#heard(text))
    this.#child.stdin.write(`PRAGMA journal_mode=${journal}; PRAGMA synchronous=${SYNCHRONOUS[journal]};\n`)
    this.#giveMore()
  }

  /** Makes a new database. */
  static async found(path: string): Promise<void> {
    const accounts = Array.from({length: ACCOUNTS}, (_, index) => `(${index}, 1000)`).join(', ')
    await tool(['sqlite3', '-batch', '-bail', path], {
      input: `CREATE TABLE entries (number INTEGER PRIMARY KEY, text TEXT);
        CREATE INDEX by_text ON entries (text);
        CREATE TABLE accounts (name INTEGER PRIMARY KEY, amount INTEGER);
        INSERT INTO accounts VALUES ${accounts};`,
    })
  }

  /** Goes on with transactions after number `committed`. */
  static run(path: string, journal: Journal, committed: number): Bank {
    return new Bank(path, journal, committed)
  }

  /** The last transaction whose COMMIT has returned. */
  get committed(): number {
    return this.#committed
  }

  get isRunning(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null
  }

  /** Resolves when so many more have been committed; throws with what SQLite said when it ends before. */
  async goesOn(more: number): Promise<void> {
    const goal = this.#committed + more
    await until(() => this.#committed >= goal || !this.isRunning, `${more} more transactions`, 60_000)
    if (this.#committed < goal) throw new Error(`sqlite3 ended: ${this.#complaints}`)
  }

  /** Ends after what it was given. Throws when something has failed. */
  async stop(): Promise<void> {
    this.#stopping = true
    this.#child.stdin.end()
    await this.#end()
    if (this.#child.exitCode !== 0) throw new Error(`sqlite3 ended with ${this.#child.exitCode}: ${this.#complaints}`)
  }

  /** Waits for its end after its disk has failed; ends it by force if it does not notice. Gives what it complained about. */
  async fails(): Promise<string> {
    await this.#end()
    return this.#complaints
  }

  async #end(): Promise<void> {
    const inTime = await Promise.race([this.#closed.then(() => true), sleep(END_TIMEOUT_MS, false, {ref: false})])
    if (inTime) return
    this.#child.kill('SIGKILL')
    await Promise.race([this.#closed, sleep(2000)])
    throw new Error(`sqlite3 did not end: ${this.#complaints}`)
  }

  #heard(text: string): void {
    this.#said += text
    const lines = this.#said.split('\n')
    this.#said = lines.pop() ?? ''
    for (const line of lines) if (line.startsWith('committed|')) this.#committed = Number(line.slice(10))
    this.#giveMore()
  }

  #giveMore(): void {
    while (!this.#stopping && this.#given < this.#committed + AHEAD) {
      const number = ++this.#given
      const [from, to] = [number % ACCOUNTS, (number * 7 + 3) % ACCOUNTS]
      this.#child.stdin.write(
        `BEGIN; INSERT INTO entries VALUES (${number}, ${textOf(`${number}`)}); ` +
          `UPDATE accounts SET amount = amount - ${number} WHERE name = ${from}; UPDATE accounts SET amount = amount + ${number} WHERE name = ${to}; ` +
          `COMMIT; SELECT 'committed', ${number};\n`,
      )
    }
  }
}

/** What is wrong with the database, one line each; its recovery happens here. `committed`: every COMMIT up to this one has returned. */
export async function faultsOf(path: string, committed: number): Promise<string[]> {
  const output = await tool(['sqlite3', '-batch', '-bail', path], {
    input: `PRAGMA integrity_check;
      SELECT 'missing', ${committed} - count(*) FROM entries WHERE number <= ${committed};
      SELECT 'beyond', max(0, max(number) - ${committed} - ${AHEAD}) FROM entries;
      SELECT 'gaps', max(number) - count(*) FROM entries;
      SELECT 'wrong', count(*) FROM entries WHERE text <> ${textOf('number')};
      SELECT 'money', sum(amount) - ${ACCOUNTS * 1000} FROM accounts;`,
  })
  const expected = ['ok', 'missing|0', 'beyond|0', 'gaps|0', 'wrong|0', 'money|0']
  const lines = output.trim().split('\n')
  return lines.length === expected.length ? lines.filter((line, index) => line !== expected[index]) : [`sqlite3 said: ${output}`]
}

/** How many rows there are: those of transactions that were committed without our being told, too. */
export async function lastOf(path: string): Promise<number> {
  return Number((await tool(['sqlite3', '-batch', '-bail', path, 'SELECT max(number) FROM entries'])).trim())
}

/** An SQL expression for what row `number` holds: several pages now and then. */
function textOf(number: string): string {
  return `printf('%0*d', 20 + (${number} * 7919) % 9000, ${number})`
}
