// Several initiators that nobody here wrote, at one engine with two replicas: beside each other, killed, kept out.
import {spawn} from 'node:child_process'
import {readFile, writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import t, {type Test} from 'tap'
import {shortDir} from '../support/short-dir.js'
import {until} from '../support/until.js'
import {LEASH} from './support/daemon.js'
import {LiveVolume} from './support/live-volume.js'
import {asInitiator, withoutQemuIscsi} from './support/qemu-iscsi.js'
import {attempt, missing, tool} from './support/tool.js'

const SIZE = 64 * 1024 * 1024
const HALF = SIZE / 2
/** What is written is told apart from what was there by these bytes. */
const [FIRST, SECOND] = [0x11, 0x22]
/** Small, so that writing takes longer than it takes to notice that it has begun. */
const SMALL = 512
const LARGE = 4096

/** Fills half of the disk with `pattern`, many blocks at a time; gives how to kill it and what becomes of it. */
function writer(t: Test, disk: string, offset: number, blockBytes: number, pattern: number): {kill: () => void; code: Promise<number | null>} {
  const bench = ['-t', 'none', '-w', '-c', `${HALF / blockBytes}`, '-d', '32', '-s', `${blockBytes}`, '-S', `${blockBytes}`, '-o', `${offset}`]
  const [program = '', ...args] = [...LEASH, 'qemu-img', 'bench', ...bench, `--pattern=${pattern}`, disk]
  const child = spawn(program, args, {stdio: 'ignore'})
  const code = new Promise<number | null>(resolve => child.on('close', resolve))
  t.teardown(async () => {
    child.kill('SIGKILL')
    await code
  })
  return {kill: () => child.kill('SIGKILL'), code}
}

/** All of the disk, read by an initiator. */
async function contents(volume: LiveVolume, disk: string): Promise<Buffer> {
  const file = join(volume.folder, 'contents')
  await tool(['qemu-img', 'convert', '-O', 'raw', disk, file])
  return readFile(file)
}

t.test('two initiators write at once, and one of them is killed', {skip: await withoutQemuIscsi()}, async t => {
  const volume = new LiveVolume(t, {sizeBytes: SIZE})
  const endpoint = await volume.start({frontend: 'iscsi'})
  const [one, two] = [asInitiator(endpoint, 'one'), asInitiator(endpoint, 'two')]
  const doomed = writer(t, two, HALF, SMALL, SECOND)
  // Some of it is there when it dies.
  await until(async () => (await tool(['qemu-img', 'map', '--output=json', '--start-offset', `${HALF}`, asInitiator(endpoint, 'three')])).includes('"data": true'), 'the second one writes')
  const survivor = writer(t, one, 0, LARGE, FIRST)
  doomed.kill()
  t.equal(await doomed.code, null)
  t.equal(await survivor.code, 0, 'the other one goes on')

  const bytes = await contents(volume, asInitiator(endpoint, 'three'))
  t.ok(bytes.subarray(0, HALF).every(byte => byte === FIRST), 'all of the first one')
  let written = 0
  for (let at = HALF; at < SIZE; at += SMALL) {
    const block = bytes.subarray(at, at + SMALL)
    if (block.every(byte => byte === SECOND)) written++
    else if (!block.every(byte => byte === 0)) t.fail(`a part of a block at ${at}`)
  }
  t.ok(written > 0 && written < HALF / SMALL, `${written} blocks of the second one, whole`)

  t.comment('it comes back under its name')
  const again = writer(t, two, HALF, LARGE, SECOND)
  t.equal(await again.code, 0)
  t.ok((await contents(volume, one)).subarray(HALF).every(byte => byte === SECOND))
  t.same(await volume.modes(), ['RW', 'RW'])
  await volume.stop()
  const [left, right] = await volume.sumsOfReplicas()
  t.equal(left, right, 'both replicas hold the same')
})

t.test('CHAP', {skip: await missing('iscsi-inq', 'iscsi-ls')}, async t => {
  const secrets = join(shortDir(t), 'chap')
  await writeFile(secrets, 'node.session.auth.username = somebody\nnode.session.auth.password = asecretofsomelength\n')
  const volume = new LiveVolume(t, {sizeBytes: SIZE})
  const endpoint = await volume.start({frontend: 'iscsi', flags: ['--iscsi-chap-file', secrets]})
  const as = (user: string, secret: string): string => endpoint.replace('iscsi://', `iscsi://${user}%${secret}@`)
  const inquire = (url: string): ReturnType<typeof attempt> => attempt(['iscsi-inq', '-i', 'iqn.2000-01.org.example:chap', url])

  t.match(await inquire(as('somebody', 'asecretofsomelength')), {code: 0, stdout: /LONGHORN/i})
  for (const [user, secret] of [['somebody', 'anothersecretofsome'], ['nobody', 'asecretofsomelength'], ['somebody', '']] as const) {
    const {code, stdout, stderr} = await inquire(as(user, secret))
    t.not(code, 0, `${user} with ${secret}`)
    t.notMatch(stdout + stderr, /LONGHORN/)
  }
  t.not((await inquire(endpoint)).code, 0, 'and without any')
  t.equal((await inquire(as('somebody', 'asecretofsomelength'))).code, 0, 'the right one still gets in')

  const refusals = volume.engine.log.filter(({reason}) => /^login refused: ./.test(`${reason}`))
  t.ok(refusals.length >= 4)
  t.ok(refusals.every(({peer}) => `${peer}`.includes('iqn.2000-01.org.example:chap')), 'the log names the initiator each time, and the reason')
  t.notMatch(JSON.stringify(volume.engine.log), /asecretofsomelength|anothersecret/, 'and no secret')
  await volume.stop()
})

t.test('an initiator that is not on the list', {skip: await missing('iscsi-inq', 'iscsi-ls')}, async t => {
  const volume = new LiveVolume(t, {sizeBytes: SIZE})
  const endpoint = await volume.start({frontend: 'iscsi', flags: ['--iscsi-allow', 'iqn.2000-01.org.example:friend']})
  const portal = `iscsi://${new URL(endpoint).host}`
  t.match(await attempt(['iscsi-inq', '-i', 'iqn.2000-01.org.example:friend', endpoint]), {code: 0})
  t.not((await attempt(['iscsi-inq', '-i', 'iqn.2000-01.org.example:stranger', endpoint])).code, 0)
  t.match(await tool(['iscsi-ls', '-i', 'iqn.2000-01.org.example:friend', portal]), /iqn\.2019-10\.io\.longhorn:/)
  t.notMatch((await attempt(['iscsi-ls', '-i', 'iqn.2000-01.org.example:stranger', portal])).stdout, /iqn\.2019-10\.io\.longhorn:/, 'nor sees that there is a target')
  t.ok(volume.engine.log.some(({peer, reason}) => `${peer}`.includes(':stranger') && `${reason}`.startsWith('login refused: ')), 'the log says who and why')
  await volume.stop()
})
