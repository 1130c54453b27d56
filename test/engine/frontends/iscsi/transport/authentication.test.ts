import {createHash} from 'node:crypto'
import t from 'tap'
import {Initiator, INITIATOR, TARGET} from './support/initiator.js'
import {serve, type Served} from './support/served.js'
import {OP, pairsOf, text} from './support/wire.js'

const NAMES = {InitiatorName: INITIATOR, TargetName: TARGET}
const THEIRS = {name: 'one', secret: 'the first secret'}
const OURS = {name: 'target', secret: 'the second secret'}
const CHAP = {initiator: THEIRS, target: OURS}
const HASHES: Record<string, string> = {5: 'md5', 6: 'sha1', 7: 'sha256', 8: 'sha3-256'}

function answerTo(algorithm: string, identifier: string, secret: string, challenge: string): string {
  const hash = createHash(HASHES[algorithm]!)
  return `0x${hash.update(Buffer.of(Number(identifier))).update(secret).update(Buffer.from(challenge.slice(2), 'hex')).digest('hex')}`
}

/** Up to the challenge. */
async function challenged({port}: Served, algorithms = '7'): Promise<{initiator: Initiator; asked: Record<string, string>}> {
  const initiator = await Initiator.connect(port)
  const method = await initiator.loginStep({stage: 0, next: 1, text: {...NAMES, AuthMethod: 'None,CHAP'}})
  if (pairsOf(method.data).AuthMethod !== 'CHAP' || (method.flags & 0x80) !== 0) throw new Error('no CHAP')
  const response = await initiator.loginStep({stage: 0, next: 1, text: {CHAP_A: algorithms}})
  return {initiator, asked: pairsOf(response.data)}
}

const status = (pdu: {at36: number}): number => pdu.at36 >>> 16

t.test('each algorithm, one way and mutual', async t => {
  const served = await serve(t, {rules: {chap: CHAP}})
  for (const [list, chosen] of [['5', '5'], ['6', '6'], ['7', '7'], ['8', '8'], ['9,8,5', '8']] as const) {
    for (const mutual of [false, true]) {
      const {initiator, asked} = await challenged(served, list)
      t.equal(asked.CHAP_A, chosen)
      const proof = {CHAP_N: THEIRS.name, CHAP_R: answerTo(chosen, asked.CHAP_I!, THEIRS.secret, asked.CHAP_C!)}
      const question = {CHAP_I: '200', CHAP_C: '0x0102030405'}
      const response = await initiator.loginStep({stage: 0, next: 1, text: mutual ? {...proof, ...question} : proof})
      t.same([status(response), response.flags], [0, 0x81])
      const wanted = mutual ? {CHAP_N: OURS.name, CHAP_R: answerTo(chosen, '200', OURS.secret, question.CHAP_C)} : {}
      t.same(pairsOf(response.data), wanted)
      const last = await initiator.loginStep({stage: 1, next: 3, text: {ImmediateData: 'Yes'}})
      t.equal(status(last), 0)
      t.equal((await initiator.read(0, 1)).length, 512)
      initiator.kill()
    }
  }
})

t.test('a challenge is never the same', async t => {
  const served = await serve(t, {rules: {chap: CHAP}})
  const seen = new Set<string>()
  for (let count = 0; count < 20; count++) {
    const {initiator, asked} = await challenged(served)
    seen.add(asked.CHAP_C!)
    initiator.kill()
  }
  t.equal(seen.size, 20)
})

t.test('whoever cannot prove it stays out', async t => {
  const served = await serve(t, {rules: {chap: CHAP}})
  const right = (asked: Record<string, string>): string => answerTo(asked.CHAP_A!, asked.CHAP_I!, THEIRS.secret, asked.CHAP_C!)
  const attempts: [string, (asked: Record<string, string>) => Record<string, string>, number][] = [
    ['a wrong secret', asked => ({CHAP_N: THEIRS.name, CHAP_R: answerTo('7', asked.CHAP_I!, 'guess', asked.CHAP_C!)}), 0x0201],
    ['a wrong name', asked => ({CHAP_N: 'two', CHAP_R: right(asked)}), 0x0201],
    ['no name', asked => ({CHAP_R: right(asked)}), 0x0201],
    ['an empty response', () => ({CHAP_N: THEIRS.name, CHAP_R: ''}), 0x0201],
    ['a response that is no number', () => ({CHAP_N: THEIRS.name, CHAP_R: '0xzz'}), 0x0201],
    ['a short response', asked => ({CHAP_N: THEIRS.name, CHAP_R: right(asked).slice(0, -2)}), 0x0201],
    ['the target\'s own proof', asked => ({CHAP_N: OURS.name, CHAP_R: answerTo('7', asked.CHAP_I!, OURS.secret, asked.CHAP_C!)}), 0x0201],
    ['our challenge sent back', asked => ({CHAP_N: THEIRS.name, CHAP_R: right(asked), CHAP_I: asked.CHAP_I!, CHAP_C: asked.CHAP_C!}), 0x0201],
    ['a challenge without an identifier', asked => ({CHAP_N: THEIRS.name, CHAP_R: right(asked), CHAP_C: '0x01'}), 0x0200],
    ['an identifier out of range', asked => ({CHAP_N: THEIRS.name, CHAP_R: right(asked), CHAP_I: '256', CHAP_C: '0x01'}), 0x0200],
    ['a challenge that is none', asked => ({CHAP_N: THEIRS.name, CHAP_R: right(asked), CHAP_I: '1', CHAP_C: 'what'}), 0x0200],
    ['a name only', () => ({CHAP_N: THEIRS.name}), 0x0200],
    ['the algorithm again', () => ({CHAP_A: '5'}), 0x0200],
  ]
  for (const [what, answer, wanted] of attempts) {
    const {initiator, asked} = await challenged(served)
    const response = await initiator.loginStep({stage: 0, next: 1, text: answer(asked)})
    t.equal(status(response), wanted, what)
    await initiator.end()
  }
  const {initiator} = await challenged(served)
  const nothing = await initiator.loginStep({stage: 0, next: 1})
  t.same([status(nothing), nothing.flags & 0x80], [0, 0], 'a step without proof is no step')
  initiator.kill()
  const algorithms = await Initiator.connect(served.port)
  await algorithms.loginStep({stage: 0, next: 1, text: {...NAMES, AuthMethod: 'CHAP'}})
  t.equal(status(await algorithms.loginStep({stage: 0, next: 1, text: {CHAP_A: '56,9'}})), 0x0201)
  t.equal(served.server.sessions, 0)
  t.notMatch(JSON.stringify(served.entries), /first secret|second secret|0x[\da-f]{8}/, 'and nothing of it is in the log')
})

t.test('there is no way around it', async t => {
  const served = await serve(t, {rules: {chap: CHAP}})
  for (const fields of [
    {stage: 1, next: 3, text: NAMES},
    {stage: 0, next: 3, text: NAMES},
    {stage: 0, next: 1, text: {...NAMES, AuthMethod: 'None'}},
    {stage: 0, next: 3, text: {...NAMES, AuthMethod: 'None'}},
    {stage: 0, next: 1, text: {...NAMES, AuthMethod: 'SRP'}},
  ]) {
    const initiator = await Initiator.connect(served.port)
    t.equal(status(await initiator.loginStep(fields)), 0x0201, JSON.stringify(fields))
    await initiator.end()
  }
  const initiator = await Initiator.connect(served.port)
  await initiator.loginStep({stage: 0, next: 3, text: {...NAMES, AuthMethod: 'CHAP'}})
  initiator.send({opcode: OP.COMMAND, itt: 9, at24: 1})
  t.equal(status(await initiator.next()), 0x020b)
})

t.test('a target without a secret proves nothing', async t => {
  const served = await serve(t, {rules: {chap: {initiator: THEIRS, target: undefined}}})
  const {initiator, asked} = await challenged(served)
  const proof = {CHAP_N: THEIRS.name, CHAP_R: answerTo('7', asked.CHAP_I!, THEIRS.secret, asked.CHAP_C!)}
  t.equal(status(await initiator.loginStep({stage: 0, next: 1, text: {...proof, CHAP_I: '1', CHAP_C: '0x01'}})), 0x0201)
})

t.test('discovery has secrets of its own', async t => {
  const {port} = await serve(t, {rules: {chap: CHAP}})
  const initiator = await Initiator.connect(port)
  const discovery = {InitiatorName: INITIATOR, SessionType: 'Discovery'}
  t.equal(status(await initiator.loginStep({text: discovery})), 0, 'or none')
  initiator.kill()
  const guarded = await serve(t, {rules: {discoveryChap: CHAP}})
  const other = await Initiator.connect(guarded.port)
  t.equal(status(await other.loginStep({text: discovery})), 0x0201)
  const third = await Initiator.connect(guarded.port)
  t.equal(status(await third.loginStep({text: {...NAMES}})), 0, 'the volume does not need them then')
  third.send({opcode: OP.TEXT | 0x40, itt: 5, at20: 0xffffffff, at24: 1, data: text({SendTargets: ''})})
  t.match(pairsOf((await third.next()).data), {TargetName: TARGET})
  third.kill()
})
