import {spawn} from 'node:child_process'
import {createInterface} from 'node:readline'
import {fileURLToPath} from 'node:url'
import type {Test} from 'tap'

/** An iSCSI target of so many MiB of memory in a process of its own, ended after the test. Gives the URL of its disk. */
export async function startTarget(t: Test, sizeMib: number, chapFile?: string): Promise<string> {
  const script = fileURLToPath(new URL('target-main.js', import.meta.url))
  const args = ['--enable-source-maps', script, `${sizeMib}`, ...(chapFile === undefined ? [] : [chapFile])]
  const child = spawn(process.execPath, args, {stdio: ['pipe', 'pipe', 'inherit'], env: {...process.env, LONGHORN_LOG_LEVEL: 'error'}})
  const exited = new Promise<number | null>(resolve => child.on('exit', resolve))
  t.teardown(async () => {
    child.stdin.end()
    const code = await exited
    if (code !== 0) throw new Error(`the target ended with ${code}`)
  })
  for await (const line of createInterface(child.stdout)) return line
  throw new Error(`the target ended with ${await exited}`)
}
