import t from 'tap'
import {LonghornError} from '../../src/lib/errors.js'
import {chooseReplicas, type Candidate} from '../../src/engine/replica-choice.js'
import type {ReplicaFacts} from '../../src/engine/replica-control.js'

const GIB = 1024 ** 3
const OURS = ['flush', 'fua', 'write-zeroes', 'block-status']

function facts(rest: Partial<ReplicaFacts> = {}): ReplicaFacts {
  return {state: 'closed', sizeBytes: GIB, sectorSize: 512, rebuilding: false, features: OURS, id: '', membership: undefined, dirty: false, revisionCounter: undefined, ...rest}
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
    {what: 'the only one is broken', answers: [{state: 'error'}], code: 'LH_CORRUPT'},
    {what: 'the only one is in use', answers: [{state: 'open', features: []}], code: 'LH_BUSY'},
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
