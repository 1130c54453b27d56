import t from 'tap'
import {commonBase, judge, type RestoredState} from '../../src/engine/restored-state.js'

interface Short {
  readonly begun?: string
  readonly running?: boolean
  readonly backup?: string
  readonly layer?: string
  readonly unwritten?: readonly string[]
}

/** Replicas `a`, `b`, …; undefined for one that knows of no backup. */
function states(...replicas: (Short | undefined)[]): RestoredState[] {
  return replicas.map((one, index) => ({
    address: String.fromCharCode(97 + index),
    restored: one && {begun: one.begun ?? '', running: one.running ?? false, backup: one.backup ?? '', layer: one.layer ?? ''},
    unwrittenLayers: one?.unwritten ?? (one?.layer === undefined ? [] : [one.layer]),
    holdsData: true,
  }))
}

t.test('whether a volume may be used', async t => {
  const cases: {what: string; replicas: (Short | undefined)[]; unusable?: string; behind?: string}[] = [
    {what: 'never restored', replicas: [undefined, undefined]},
    {what: 'restored on all', replicas: [{backup: '1', layer: 'x'}, {backup: '1', layer: 'x'}]},
    {what: 'one runs', replicas: [{backup: '1', layer: 'x'}, {backup: '1', layer: 'x', begun: '2', running: true}], unusable: 'LH_BUSY'},
    {what: 'failed on all, with nothing before', replicas: [{begun: '1'}, {begun: '1'}], unusable: 'LH_CONFLICT'},
    {what: 'failed on one, and the other never began', replicas: [{begun: '1'}, undefined], unusable: 'LH_CONFLICT'},
    {what: 'failed on all, with a backup before', replicas: [{begun: '2', backup: '1', layer: 'x'}, {begun: '2', backup: '1', layer: 'x'}]},
    {what: 'failed on one, complete on the other', replicas: [{begun: '2', backup: '1', layer: 'x'}, {backup: '2', layer: 'y'}], behind: 'a'},
    {what: 'one was not even asked', replicas: [{backup: '2', layer: 'y'}, {begun: '2'}, {backup: '1', layer: 'x'}], behind: 'bc'},
    {what: 'different backups, and nobody knows why', replicas: [{backup: '2', layer: 'y'}, {backup: '1', layer: 'x'}], unusable: 'LH_CONFLICT'},
    {what: 'one has it, the other has not', replicas: [{backup: '2', layer: 'y'}, undefined], unusable: 'LH_CONFLICT'},
    {what: 'rebuilt from the other: it has the layer and no record', replicas: [{backup: '2', layer: 'y'}, {unwritten: ['y']}]},
    {what: 'written since: the layers may have been merged anyhow', replicas: [{backup: '2', layer: 'y', unwritten: []}, undefined]},
  ]
  for (const {what, replicas, unusable, behind = ''} of cases) {
    const verdict = judge(states(...replicas))
    t.equal(verdict.unusable?.code, unusable, what)
    t.equal([...verdict.behind.keys()].join(''), behind, what)
  }
})

t.test('what an increment can stand on', async t => {
  t.same(commonBase(states({backup: '1', layer: 'x'}, {unwritten: ['rebuild', 'x']})), {backup: '1', layer: 'x'})
  t.equal(commonBase(states({backup: '1', layer: 'x'}, {backup: '1', layer: 'x', unwritten: []})), undefined, 'one was written to')
  t.equal(commonBase(states({begun: '1'}, undefined)), undefined)
})
