import t from 'tap'
import {LonghornError} from '../../src/lib/errors.js'
import {chooseReplicas, type Candidate} from '../../src/engine/replica-choice.js'
import type {ReplicaFacts} from '../../src/engine/replica-control.js'

const GIB = 1024 ** 3
const OURS = ['flush', 'fua', 'write-zeroes', 'block-status']

function facts(rest: Partial<ReplicaFacts> = {}): ReplicaFacts {
  return {state: 'closed', sizeBytes: GIB, sectorSize: 512, rebuilding: false, features: OURS, id: '', membership: undefined, dirty: false, revisionCounter: undefined, restored: undefined, unwrittenLayers: [], holdsData: false, ...rest}
}

/** Candidates `a`, `b`, …; an error for one that could not be asked. */
function candidates(...answers: (Partial<ReplicaFacts> | Error)[]): Candidate[] {
  return answers.map((answer, index) => ({
    address: `tcp://${String.fromCharCode(97 + index)}:1`,
    answer: answer instanceof Error ? answer : facts(answer),
  }))
}

const gone = new LonghornError('UNREACHABLE', 'replica tcp://x:1: connection refused')

t.test('who takes part', async t => {
  const cases: {what: string; answers: (Partial<ReplicaFacts> | Error)[]; usable: string; rejected?: Record<string, string>}[] = [
    {what: 'all are well', answers: [{}, {}, {}], usable: 'abc'},
    {what: 'one', answers: [{}], usable: 'a'},
    {what: 'one does not answer', answers: [{}, gone], usable: 'a', rejected: {b: 'LH_UNREACHABLE'}},
    {what: 'an error without a meaning', answers: [new TypeError('x'), {}], usable: 'b', rejected: {a: 'LH_IO'}},
    {what: 'of ours, left open by an engine that is gone', answers: [{state: 'open'}, {state: 'dirty'}, {}], usable: 'acb'},
    {what: "upstream's, open", answers: [{state: 'open', features: []}, {}], usable: 'b', rejected: {a: 'LH_BUSY'}},
    {what: "upstream's, dirty", answers: [{state: 'dirty', features: []}, {}], usable: 'b', rejected: {a: 'LH_BUSY'}},
    {what: "upstream's, closed", answers: [{features: []}, {}], usable: 'ab'},
    {what: 'broken', answers: [{state: 'error'}, {}], usable: 'b', rejected: {a: 'LH_CORRUPT'}},
    {what: 'empty', answers: [{state: 'initial', sizeBytes: 0}, {}], usable: 'b', rejected: {a: 'LH_NOT_FOUND'}},
    {what: 'being rebuilt', answers: [{state: 'rebuilding', rebuilding: true}, {}], usable: 'b', rejected: {a: 'LH_BUSY'}},
    {what: 'was being rebuilt', answers: [{rebuilding: true}, {}], usable: 'b', rejected: {a: 'LH_CONFLICT'}},
    {what: 'was being rebuilt, and is all there is', answers: [{rebuilding: true}], usable: 'a'},
    {what: 'other sectors', answers: [{sectorSize: 4096}, {}], usable: 'b', rejected: {a: 'LH_UNSUPPORTED'}},
    {
      what: 'behind: both count',
      answers: [
        {state: 'open', revisionCounter: 7n},
        {state: 'dirty', revisionCounter: 9n},
        {state: 'open', revisionCounter: 9n},
      ],
      usable: 'cb',
      rejected: {a: 'LH_CONFLICT'},
    },
    {what: 'one does not count', answers: [{state: 'open', revisionCounter: 7n}, {state: 'open', revisionCounter: 9n}, {}], usable: 'abc'},
  ]
  for (const {what, answers, usable, rejected = {}} of cases) {
    const choice = chooseReplicas(candidates(...answers), {sizeBytes: GIB})
    t.equal(choice.usable.map(address => address[6]).join(''), usable, what)
    t.same(Object.fromEntries([...choice.rejected].map(([address, error]) => [address[6], error.code])), rejected, what)
    t.equal(choice.sizeBytes, GIB)
  }
})

t.test('nobody can take part', async t => {
  const cases: {what: string; answers: (Partial<ReplicaFacts> | Error)[]; code: string; message?: RegExp}[] = [
    {what: 'the only one does not answer', answers: [gone], code: 'LH_UNREACHABLE', message: /^replica tcp:\/\/x:1: connection refused$/},
    {what: 'none answers', answers: [gone, gone], code: 'LH_UNREACHABLE', message: /no replica can be used: .*; .*/},
    {what: 'the only one is broken', answers: [{state: 'error'}], code: 'LH_NO_DATA', message: /its files are damaged/},
    {what: 'the only one is in use', answers: [{state: 'open', features: []}], code: 'LH_NO_DATA', message: /in use by another engine/},
    {what: 'one is broken, one is in use', answers: [{state: 'error'}, {state: 'open', features: []}], code: 'LH_NO_DATA'},
    {what: 'one is broken, one does not answer', answers: [{state: 'error'}, gone], code: 'LH_NO_DATA'},
    {what: 'all were being rebuilt', answers: [{rebuilding: true}, {rebuilding: true}], code: 'LH_NO_DATA'},
  ]
  for (const {what, answers, code, message} of cases) t.throws(() => chooseReplicas(candidates(...answers), {sizeBytes: GIB}), {code, ...(message && {message})}, what)
})

t.test('sizes', async t => {
  const [small, large] = [{sizeBytes: GIB}, {sizeBytes: 2 * GIB}]
  t.throws(() => chooseReplicas(candidates(small, small), {sizeBytes: 2 * GIB}), {code: 'LH_CONFLICT', message: /2 GiB .*tcp:\/\/a:1 has 1 GiB/})
  t.throws(() => chooseReplicas(candidates(small, large), {sizeBytes: GIB}), {code: 'LH_CONFLICT', message: /different sizes: .*a:1 has 1 GiB.*b:1 has 2 GiB/})
  t.match(chooseReplicas(candidates(small, large), {sizeBytes: 2 * GIB, currentSizeBytes: GIB}), {sizeBytes: GIB, usable: ['tcp://a:1']}, 'an expansion that was cut short')
  const choice = chooseReplicas(candidates(small, large), {sizeBytes: 2 * GIB, currentSizeBytes: GIB})
  t.match([...choice.rejected.values()], [{code: 'LH_CONFLICT', message: /replica tcp:\/\/b:1 is of 2 GiB/}])
  t.throws(() => chooseReplicas(candidates(small, large), {sizeBytes: 3 * GIB, currentSizeBytes: 3 * GIB}), {code: 'LH_NO_DATA'})
  t.equal(chooseReplicas(candidates(large, large), {sizeBytes: 2 * GIB, currentSizeBytes: GIB}).sizeBytes, 2 * GIB, 'they agree after all')
  t.same(chooseReplicas(candidates(small, gone), {sizeBytes: GIB}).usable, ['tcp://a:1'], 'who does not answer has no size')
})

/** A replica of ours with a record: which one of a..z, what generation it has seen, who the members were, the changes it knows. */
function recorded(id: string, generation: number, members: string, lineage: string, rest: Partial<ReplicaFacts> = {}): Partial<ReplicaFacts> {
  return {id, features: [...OURS, 'rebuild', 'members'], membership: {generation, members: [...members], lineage: ['volume', ...lineage]}, ...rest}
}

t.test('who has everything, by what was recorded', async t => {
  const cases: {what: string; answers: (Partial<ReplicaFacts> | Error)[]; usable: string; resync?: string; rebuild?: string; rejected?: string}[] = [
    {what: 'all', answers: [recorded('a', 3, 'abc', '123'), recorded('b', 3, 'abc', '123'), recorded('c', 3, 'abc', '123')], usable: 'abc'},
    {what: 'one was dropped', answers: [recorded('a', 3, 'abc', '123'), recorded('b', 4, 'bc', '1234'), recorded('c', 4, 'bc', '1234')], usable: 'bc', rebuild: 'a'},
    {what: 'a record that did not get everywhere', answers: [recorded('a', 4, 'ab', '1234'), recorded('b', 3, 'abc', '123'), recorded('c', 3, 'abc', '123')], usable: 'ab', rebuild: 'c'},
    {what: 'the newest cannot be used, and says so', answers: [recorded('a', 4, 'ab', '1234', {state: 'error'}), recorded('b', 3, 'abc', '123')], usable: 'b', rejected: 'a'},
    {what: 'one without a record', answers: [recorded('a', 3, 'a', '123'), {id: 'b', features: OURS}], usable: 'a', rejected: 'b'},
    {what: 'a long time ago', answers: [recorded('a', 30, 'a', 'uvwxyz'), recorded('b', 3, 'ab', '123')], usable: 'a', rebuild: 'b'},
    {what: "one of upstream, known by its address", answers: [recorded('a', 3, 'a', '123', {membership: {generation: 3, members: ['a', 'tcp://b:1'], lineage: ['volume', '3']}}), {features: []}], usable: 'ab'},
    {what: 'all in use at a crash', answers: [recorded('a', 3, 'ab', '123', {dirty: true}), recorded('b', 3, 'ab', '123', {dirty: true})], usable: 'a', resync: 'b'},
    {what: 'one has lived on', answers: [recorded('a', 3, 'ab', '123', {dirty: true}), recorded('b', 3, 'ab', '123', {dirty: true, state: 'dirty'})], usable: 'b', resync: 'a'},
    {what: 'one was closed', answers: [recorded('a', 3, 'ab', '123', {dirty: true}), recorded('b', 3, 'ab', '123')], usable: 'b', resync: 'a'},
    {what: 'a rebuild was cut short', answers: [recorded('a', 3, 'a', '123'), recorded('b', 3, 'a', '123', {rebuilding: true})], usable: 'a', rebuild: 'b'},
    {what: 'an expansion was cut short', answers: [recorded('a', 3, 'ab', '123'), recorded('b', 3, 'ab', '123', {sizeBytes: GIB / 2})], usable: 'a', rebuild: 'b'},
  ]
  for (const {what, answers, usable, resync = '', rebuild = '', rejected = ''} of cases) {
    const choice = chooseReplicas(candidates(...answers), {sizeBytes: GIB})
    const letters = (addresses: Iterable<string>): string => [...addresses].map(address => address[6]).join('')
    t.same(
      {usable: letters(choice.usable), resync: letters(choice.resync), rebuild: letters(choice.rebuild.keys()), rejected: letters(choice.rejected.keys())},
      {usable, resync, rebuild, rejected},
      what,
    )
  }
})

t.test('histories that do not fit together', async t => {
  const choose = (answers: (Partial<ReplicaFacts> | Error)[], salvage = false): string => chooseReplicas(candidates(...answers), {sizeBytes: GIB, salvage}).usable.join()
  const apart = [recorded('a', 4, 'a', '1234'), recorded('b', 4, 'b', '1235')]
  t.throws(() => choose(apart), {code: 'LH_CONFLICT', message: /tcp:\/\/b:1 \(generation 4\) and others \(generation 4\) were used apart/})
  t.equal(choose(apart, true), 'tcp://a:1')
  const longer = [recorded('a', 4, 'a', '1234'), recorded('b', 6, 'b', '123567')]
  t.throws(() => choose(longer), {code: 'LH_CONFLICT'})
  t.equal(choose(longer, true), 'tcp://b:1', 'the highest generation')
  const foreign = [recorded('a', 3, 'a', '123'), recorded('b', 3, 'b', '123', {membership: {generation: 9, members: ['b'], lineage: ['other', '1']}})]
  for (const salvage of [false, true]) t.throws(() => choose(foreign, salvage), {code: 'LH_CONFLICT', message: /different volumes: tcp:\/\/a:1 to volume, tcp:\/\/b:1 to other/})
  t.throws(() => choose([recorded('x', 3, 'x', '1'), recorded('x', 3, 'x', '1')]), {code: 'LH_CONFLICT', message: /one is a copy of the other/})
  // Of the only two that have everything one does not answer and one is broken.
  const gone = [recorded('a', 3, 'ab', '12'), recorded('b', 5, 'bc', '1234', {state: 'error'}), new LonghornError('UNREACHABLE', 'c')]
  t.throws(() => choose(gone), {code: 'LH_NO_DATA', message: /generation 5 is on other replicas: give those, or --salvage/})
  t.equal(choose(gone, true), 'tcp://a:1')
})
