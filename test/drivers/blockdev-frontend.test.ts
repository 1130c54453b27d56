// How the frontend blockdev serves a volume to the ways to attach, with ways that make nothing. Needs root, for its folder in /run.
import {existsSync, mkdirSync, readFileSync, statSync, writeFileSync} from 'node:fs'
import {connect} from 'node:net'
import {once} from 'node:events'
import {join} from 'node:path'
import t, {type Test} from 'tap'
import type {AttachRequest, AttachWay, Endpoint, IscsiEndpoint} from '../../src/drivers/attach/attach-way.js'
import {Attacher} from '../../src/drivers/attach/attacher.js'
import {queryExport} from '../../src/drivers/attach/nbd-export.js'
import {blockdevFrontend} from '../../src/drivers/blockdev-frontend.js'
import {readChapFile, type AccessSecrets} from '../../src/engine/frontends/iscsi/transport/chap-file.js'
import type {FrontendOptions} from '../../src/engine/frontends/frontend.js'
import {LonghornError} from '../../src/lib/errors.js'
import {createLog} from '../../src/lib/log.js'
import {MemoryDevice} from '../engine/support/memory-device.js'

const SIZE = 1024 * 1024
const skip = process.geteuid?.() === 0 ? false : 'needs root'

interface Look {
  readonly request: AttachRequest
  readonly mode?: number
  readonly secrets?: AccessSecrets
}

/** Looks at what it is offered, and then cannot use it. */
class LookingWay implements AttachWay {
  readonly name = 'looking'
  looks: Look[] = []

  constructor(
    readonly takes: Endpoint['kind'],
    readonly zeroesByTrim: boolean,
  ) {}

  async available(): Promise<{ok: true}> {
    return {ok: true}
  }

  async connect(request: AttachRequest): Promise<never> {
    const {endpoint} = request
    if (endpoint.kind === 'nbd') {
      await queryExport(endpoint, 60_000)
      this.looks.push({request})
    } else {
      const socket = connect(endpoint.address)
      await once(socket, 'connect')
      socket.destroy()
      const path = endpoint.chapFile!
      this.looks.push({request, mode: statSync(path).mode & 0o777, secrets: await readChapFile(path)})
    }
    throw new LonghornError('IO', 'seen enough')
  }

  async inspect(): Promise<{state: 'gone'}> {
    return {state: 'gone'}
  }

  async disconnect(): Promise<string[]> {
    return []
  }

  async resize(): Promise<void> {
    throw new Error('nothing to resize')
  }
}

/** What a way was offered, by an engine that starts. */
async function look(t: Test, volume: string, way: LookingWay, stateDirectory: string, more: Partial<FrontendOptions> = {}): Promise<Look> {
  const frontend = blockdevFrontend(new Attacher([way], {stateDirectory, deviceDirectory: join(stateDirectory, 'dev')}), 'auto')
  await frontend.checkFree?.(volume, undefined)
  const options = {volume, device: new MemoryDevice(SIZE), listen: undefined, log: createLog('test'), ...more}
  await t.rejects(frontend.open(options), {code: 'LH_IO', message: 'seen enough'})
  return way.looks.at(-1)!
}

t.test('a way that takes NBD: a socket, and TRIM that promises zeros where that is needed', {skip}, async t => {
  const volume = `nbd-${process.pid}`
  for (const zeroesByTrim of [true, false]) {
    const way = new LookingWay('nbd', zeroesByTrim)
    const {request} = await look(t, volume, way, t.testdir())
    t.match(request, {volume, trim: zeroesByTrim ? 'reads-zeros' : 'may-keep-data', endpoint: {kind: 'nbd', exportName: volume, address: {kind: 'unix'}}})
    t.notOk(existsSync(`/run/longhorn/blockdev/${volume}.sock`), 'gone with the engine that could not start')
  }
})

t.test('a way that takes iSCSI: a target for those who know the secrets', {skip}, async t => {
  const volume = `iscsi_${process.pid}`
  const way = new LookingWay('iscsi', false)
  const {request, mode, secrets} = await look(t, volume, way, t.testdir())
  const endpoint = request.endpoint as IscsiEndpoint
  t.match(endpoint, {kind: 'iscsi', address: {kind: 'tcp', host: '127.0.0.1'}, iqn: `iqn.2019-10.io.longhorn:iscsi:${process.pid}`, lun: 1})
  t.equal(mode, 0o600)
  t.match(secrets, {session: {initiator: {name: 'longhorn', secret: /^[\w-]{32}$/}, target: {name: 'longhorn-engine', secret: /^[\w-]{32}$/}}})
  t.notOk(existsSync(endpoint.chapFile!))
  await t.rejects(once(connect(endpoint.address), 'connect'), {code: 'ECONNREFUSED'})
})

t.test("the user's own secrets are used, and stay", {skip}, async t => {
  const folder = t.testdir()
  const chapFile = join(folder, 'chap')
  const lines = 'node.session.auth.username = me\nnode.session.auth.password = my own long secret\n'
  writeFileSync(chapFile, lines)
  const {request, secrets} = await look(t, `own-${process.pid}`, new LookingWay('iscsi', false), join(folder, 'state'), {iscsi: {chapFile}})
  t.equal((request.endpoint as IscsiEndpoint).chapFile, chapFile)
  t.match(secrets, {session: {initiator: {name: 'me'}}})
  t.equal(readFileSync(chapFile, 'utf8'), lines)
})

t.test('after kill -9 the next engine serves where the device looks for it, with the same secrets', {skip}, async t => {
  const volume = `again-${process.pid}`
  const stateDirectory = t.testdir()
  const way = new LookingWay('iscsi', false)
  const first = await look(t, volume, way, stateDirectory)
  // What the first engine had left, if it had been killed.
  const endpoint = first.request.endpoint as IscsiEndpoint
  const folder = join(stateDirectory, 'volumes', volume)
  const {initiator, target} = first.secrets!.session!
  const left = (): void => {
    mkdirSync(folder, {recursive: true})
    const record = {version: 1, volume, id: 'x', way: way.name, bootId: '', attachedAt: '', request: first.request, notes: {}}
    writeFileSync(join(folder, 'attachment.json'), JSON.stringify(record))
    const values = {username: initiator.name, password: initiator.secret, username_in: target!.name, password_in: target!.secret}
    writeFileSync(endpoint.chapFile!, Object.entries(values).map(([key, value]) => `node.session.auth.${key} = ${value}\n`).join(''), {mode: 0o600})
  }
  left()
  const second = await look(t, volume, way, stateDirectory)
  t.same(second.request.endpoint, endpoint)
  t.same(second.secrets, first.secrets)
  t.notOk(existsSync(endpoint.chapFile!))
})
