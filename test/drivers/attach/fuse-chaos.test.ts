// Everything that takes part in an attachment is killed or removed at random, several at once; one detach has to clean up.
import {spawn} from 'node:child_process'
import {once} from 'node:events'
import {readdirSync, writeFileSync} from 'node:fs'
import {join} from 'node:path'
import {setTimeout as sleep} from 'node:timers/promises'
import {fileURLToPath} from 'node:url'
import t from 'tap'
import type {DetachReport} from '../../../src/drivers/attach/attacher.js'
import {FuseWay} from '../../../src/drivers/attach/fuse/fuse-way.js'
import {isKind} from '../../../src/lib/errors.js'
import {seededRandom} from '../../replica/support/random.js'
import type {ChildOrder} from './support/attach-child.js'
import {AttachHost, missing, processesOf} from './support/attach-host.js'

const ROUNDS = 25
const MIB = 1024 * 1024
const CHILD = fileURLToPath(new URL('support/attach-child.js', import.meta.url))
const skip = (await missing(new FuseWay(), 'mkfs.ext4')) ?? false

t.test('whatever is killed, one detach leaves nothing', {skip}, async t => {
  const random = seededRandom(t)
  const host = await AttachHost.open(t, [new FuseWay({probeTimeoutMs: 2000})])
  const server = await host.serve('chaos')
  const volume = host.volume('chaos')
  const folder = join(host.stateDirectory, 'volumes', volume)

  for (let round = 0; round < ROUNDS; round++) {
    const done: string[] = []
    const {device} = await host.attach('chaos', server)
    if (random.oneIn(2)) {
      await host.run('mkfs.ext4', '-qF', device)
      writeFileSync(join(await host.mount(device), 'file'), Buffer.alloc(2 * MIB, round))
      done.push('mounted')
    }
    const order: ChildOrder = {
      verb: random.oneIn(2) ? 'attach' : 'detach',
      way: 'fuse',
      request: {volume, endpoint: server.endpoint, trim: 'reads-zeros'},
      stateDirectory: host.stateDirectory,
      deviceDirectory: host.deviceDirectory,
    }
    const child = spawn(process.execPath, [CHILD, JSON.stringify(order)], {stdio: 'ignore'})
    const ended = once(child, 'exit')
    await sleep(random.below(300))

    const blows: Record<string, () => unknown> = {
      server: () => server.kill(),
      nbdfuse: () => processesOf(host.stateDirectory).forEach(({pid, command}) => command.startsWith('nbdfuse') && kill(pid)),
      'the other attach or detach': () => child.kill('SIGKILL'),
      mount: () => host.run('umount', '--lazy', join(folder, readdirSync(folder).find(name => /^[0-9a-f]{16}$/.test(name)) ?? '')),
      'loop device': () => host.run('losetup', '--detach', device),
      record: () => writeFileSync(join(folder, 'attachment.json'), '{"torn'),
    }
    for (const [what, strike] of Object.entries(blows)) {
      if (!random.oneIn(3)) continue
      done.push(what)
      // It may be gone already.
      await Promise.resolve().then(strike).catch(() => undefined)
      await sleep(random.below(50))
    }
    await ended
    const report = await detachAnyhow(host)
    t.same(await host.leftovers(), [], `round ${round}: ${done.join(', ')} (${report.warnings.join('; ')})`)
    await server.kill()
    await server.start()
  }
})

/** Politely first, as an engine does. */
async function detachAnyhow(host: AttachHost): Promise<DetachReport> {
  try {
    return await host.detach('chaos')
  } catch (error) {
    if (!isKind(error, 'BUSY')) throw error
    return host.detach('chaos', true)
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // It has ended by itself.
  }
}
