import {spawn, spawnSync} from 'node:child_process'
import {fileURLToPath} from 'node:url'
import {createInterface} from 'node:readline'
import type {Test} from 'tap'

/** A reason to skip the test when one of these programs cannot be started, else false. */
export function missing(...programs: readonly string[]): string | false {
  const absent = programs.filter(program => spawnSync(program, ['--version']).error !== undefined)
  return absent.length > 0 && `not installed: ${absent.join(', ')}`
}

/** A Python that has libnbd's module, which is not always the one in PATH; undefined when there is none. */
export function pythonWithLibnbd(): string | undefined {
  return ['python3', '/usr/bin/python3'].find(python => spawnSync(python, ['-c', 'import nbd']).status === 0)
}

export interface Outcome {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

/** Runs a foreign program to its end. The server under test may live in this process, so nothing here blocks. */
export async function run(program: string, args: readonly string[], input = ''): Promise<Outcome> {
  const child = spawn(program, args, {stdio: ['pipe', 'pipe', 'pipe'], timeout: 120_000, env: {...process.env, LC_ALL: 'C'}})
  let stdout = ''
  let stderr = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text))
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text))
  child.stdin.on('error', () => undefined).end(input)
  const code = await new Promise<number | null>((resolve, reject) => child.on('error', reject).on('close', resolve))
  return {code, stdout, stderr}
}

/** As run(), and fails the test with what the program said when it does not end with 0. Gives its standard output. */
export async function runs(t: Test, program: string, args: readonly string[], input = ''): Promise<string> {
  const {code, stdout, stderr} = await run(program, args, input)
  t.equal(code, 0, `${program} ${args.join(' ')}${code === 0 ? '' : `\n${stdout}${stderr}`}`)
  return stdout
}

/** A server of `bytes` bytes of memory in a process of its own, ended after the test. Gives its endpoint. */
export async function memoryServer(t: Test, address: string, bytes: number): Promise<string> {
  const script = fileURLToPath(new URL('memory-server.js', import.meta.url))
  const child = spawn(process.execPath, ['--enable-source-maps', script, address, String(bytes)], {stdio: ['pipe', 'pipe', 'inherit']})
  const exited = new Promise<number | null>(resolve => child.on('exit', resolve))
  t.teardown(async () => {
    child.kill('SIGTERM')
    const code = await exited
    if (code !== 0) throw new Error(`the server ended with ${code}`)
  })
  for await (const line of createInterface(child.stdout)) return line
  throw new Error(`the server ended with ${await exited}`)
}
