// What the attacher does with its ways, with ways that touch nothing. Needs no root.
import {existsSync, mkdirSync, writeFileSync} from 'node:fs'
import {join} from 'node:path'
import t, {type Test} from 'tap'
import type {AttachRequest, AttachWay, Availability, Condition, Slot} from '../../../src/drivers/attach/attach-way.js'
import {Attacher} from '../../../src/drivers/attach/attacher.js'
import {LonghornError} from '../../../src/lib/errors.js'

const REQUEST: AttachRequest = {
  volume: 'vol-1',
  endpoint: {kind: 'nbd', address: {kind: 'unix', path: '/x'}, exportName: ''},
  trim: 'reads-zeros',
}

/** Gets as far as the call of connect(), and says which way was called. */
class FakeWay implements AttachWay {
  readonly zeroesByTrim = false
  readonly calls: string[] = []
  condition: Condition = {state: 'gone'}

  constructor(
    readonly name: string,
    readonly availability: Availability = {ok: true},
    readonly takes: 'nbd' | 'iscsi' = 'nbd',
  ) {}

  async available(): Promise<Availability> {
    return this.availability
  }

  async connect(_request: AttachRequest, slot: Slot): Promise<never> {
    this.calls.push('connect')
    await slot.note({from: this.name})
    throw new LonghornError('UNREACHABLE', `connected by ${this.name}`)
  }

  async inspect(): Promise<Condition> {
    return this.condition
  }

  async disconnect(): Promise<string[]> {
    this.calls.push('disconnect')
    return []
  }

  async resize(): Promise<void> {
    this.calls.push('resize')
  }
}

function attacherOf(t: Test, ...ways: AttachWay[]): {attacher: Attacher; stateDirectory: string} {
  const stateDirectory = join(t.testdir(), 'state')
  return {attacher: new Attacher(ways, {stateDirectory, deviceDirectory: join(stateDirectory, 'dev')}), stateDirectory}
}

/** Of all tests here together. */
const signal = AbortSignal.timeout(240_000)

t.test('the first way that this host can do, or the one that is named', async t => {
  const ways = [new FakeWay('first', {ok: false, reason: 'no first here'}), new FakeWay('second'), new FakeWay('third')]
  const {attacher} = attacherOf(t, ...ways)
  t.same(await attacher.available(), [
    {way: 'first', ok: false, reason: 'no first here'},
    {way: 'second', ok: true},
    {way: 'third', ok: true},
  ])
  await t.rejects(attacher.attach(REQUEST, signal), {code: 'LH_UNREACHABLE', message: 'connected by second'})
  await t.rejects(attacher.attach(REQUEST, signal, 'third'), {message: 'connected by third'})
  await t.rejects(attacher.attach(REQUEST, signal, 'first'), {code: 'LH_UNSUPPORTED', message: /no first here/})
  await t.rejects(attacher.attach(REQUEST, signal, 'fourth'), {code: 'LH_USAGE', message: /fourth.*auto or first, second, third/})
})

t.test('no way at all: all reasons', async t => {
  const {attacher} = attacherOf(t, new FakeWay('a', {ok: false, reason: 'no a'}), new FakeWay('b', {ok: false, reason: 'no b'}))
  await t.rejects(attacher.attach(REQUEST, signal), {code: 'LH_UNSUPPORTED', message: /a: no a; b: no b/})
})

t.test('a way that takes other endpoints', async t => {
  const nbd = new FakeWay('nbd-way')
  const iscsi = new FakeWay('iscsi-way', {ok: true}, 'iscsi')
  const {attacher} = attacherOf(t, iscsi, nbd)
  await t.rejects(attacher.attach(REQUEST, signal), {message: 'connected by nbd-way'})
  await t.rejects(attacher.attach(REQUEST, signal, 'iscsi-way'), {code: 'LH_USAGE', message: /"iscsi-way" is no way to attach an nbd endpoint/})
  t.same(iscsi.calls, [])
})

t.test('a plan for a volume that can be served in any manner', async t => {
  const ways = [new FakeWay('first', {ok: false, reason: 'no first here'}), new FakeWay('second', {ok: true}, 'iscsi'), new FakeWay('third')]
  const choices: unknown[] = []
  const {stateDirectory} = attacherOf(t)
  const onChoice = (...choice: unknown[]): void => void choices.push(choice)
  const attacher = new Attacher(ways, {stateDirectory, deviceDirectory: join(stateDirectory, 'dev'), onChoice})
  t.same(await attacher.plan('vol-1'), {way: 'second', takes: 'iscsi', zeroesByTrim: false, endpoint: undefined})
  t.same(choices, [['vol-1', 'second', ['first: no first here']]])
  t.match(await attacher.plan('vol-1', 'third'), {way: 'third', takes: 'nbd'})
  await t.rejects(attacher.plan('vol-1', 'first'), {code: 'LH_UNSUPPORTED', message: /no first here/})
  await t.rejects(attacher.plan('vol-1', 'fourth'), {code: 'LH_USAGE'})
  t.notOk(existsSync(join(stateDirectory, 'volumes')), 'nothing was made')

  // It is attached already, or was when the engine died.
  const folder = join(stateDirectory, 'volumes', 'vol-1')
  mkdirSync(folder, {recursive: true})
  const record = {version: 1, volume: 'vol-1', id: 'x', way: 'third', bootId: '', attachedAt: '', request: REQUEST, notes: {}}
  writeFileSync(join(folder, 'attachment.json'), JSON.stringify(record))
  t.same(await attacher.plan('vol-1'), {way: 'third', takes: 'nbd', zeroesByTrim: false, endpoint: REQUEST.endpoint})
  t.match(await attacher.plan('vol-1', 'second'), {way: 'second', endpoint: undefined})
  writeFileSync(join(folder, 'attachment.json'), JSON.stringify({...record, way: 'first'}))
  t.match(await attacher.plan('vol-1'), {way: 'second', endpoint: undefined}, 'the way of before is not possible any more')
})

t.test('an attach that failed is taken back by its way, and leaves no record', async t => {
  const way = new FakeWay('way')
  const {attacher, stateDirectory} = attacherOf(t, way)
  await t.rejects(attacher.attach(REQUEST, signal), {code: 'LH_UNREACHABLE'})
  t.same(way.calls, ['connect', 'disconnect'])
  t.notOk(existsSync(join(stateDirectory, 'volumes', 'vol-1')))
  t.notOk(existsSync(join(stateDirectory, 'locks', 'vol-1')))
  t.same(await attacher.list(), [])
})

t.test('a record that is torn: every way is asked to clean up', async t => {
  const ways = [new FakeWay('a'), new FakeWay('b')]
  const {attacher, stateDirectory} = attacherOf(t, ...ways)
  for (const content of ['', '{"version":1,"vol', '[]', 'null', '{"version":2}']) {
    mkdirSync(join(stateDirectory, 'volumes', 'vol-1'), {recursive: true})
    writeFileSync(join(stateDirectory, 'volumes', 'vol-1', 'attachment.json'), content)
    t.match(await attacher.list(), [{volume: 'vol-1', state: 'broken', reason: /record/}])
    t.same(await attacher.detach('vol-1', {}, signal), {detached: true, unmounted: [], warnings: []}, content)
    t.notOk(existsSync(join(stateDirectory, 'volumes', 'vol-1')))
  }
  t.same(ways.map(({calls}) => calls.length), [5, 5])
})

t.test('an attachment of a way that this program does not have is left alone', async t => {
  const other = attacherOf(t, new FakeWay('later'))
  const way = new FakeWay('way')
  const attacher = new Attacher([way], {stateDirectory: other.stateDirectory, deviceDirectory: join(other.stateDirectory, 'dev')})
  const folder = join(other.stateDirectory, 'volumes', 'vol-1')
  mkdirSync(folder, {recursive: true})
  const record = {version: 1, volume: 'vol-1', id: 'x', way: 'later', bootId: '', attachedAt: '', request: REQUEST, notes: {}}
  writeFileSync(join(folder, 'attachment.json'), JSON.stringify(record))
  await t.rejects(attacher.detach('vol-1', {}, signal), {code: 'LH_UNSUPPORTED', message: /"later"/})
  await t.rejects(attacher.attach(REQUEST, signal), {code: 'LH_UNSUPPORTED', message: /"later"/})
  t.ok(existsSync(folder))
  t.same(way.calls, [])
})

t.test('only what is broken is detached, when that is asked for', async t => {
  const way = new FakeWay('way')
  const {attacher, stateDirectory} = attacherOf(t, way)
  const folder = join(stateDirectory, 'volumes', 'vol-1')
  mkdirSync(folder, {recursive: true})
  const record = {version: 1, volume: 'vol-1', id: 'x', way: 'way', bootId: '', attachedAt: '', request: REQUEST, notes: {}}
  writeFileSync(join(folder, 'attachment.json'), JSON.stringify(record))
  way.condition = {state: 'up', node: {name: 'none0', major: 0, minor: 0}}
  t.match(await attacher.detach('vol-1', {force: true, onlyBroken: true}, signal), {detached: false})
  t.ok(existsSync(folder))
  way.condition = {state: 'down', reason: 'its engine is gone'}
  t.match(await attacher.detach('vol-1', {force: true, onlyBroken: true}, signal), {detached: true})
  t.notOk(existsSync(folder))
  t.same(way.calls, ['disconnect'])
})

t.test('detaching what was never attached', async t => {
  const {attacher} = attacherOf(t, new FakeWay('way'))
  t.same(await attacher.detach('vol-1', {}, signal), {detached: false, unmounted: [], warnings: []})
  t.same(await attacher.list(), [])
})
