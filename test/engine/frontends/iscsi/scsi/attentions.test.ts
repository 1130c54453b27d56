import t from 'tap'
import {Attentions} from '../../../../../src/engine/frontends/iscsi/scsi/attentions.js'
import {CONDITION} from '../../../../../src/engine/frontends/iscsi/scsi/sense.js'

t.test('told in order, each kind once', async t => {
  const attentions = new Attentions()
  t.notOk(attentions.pending)
  attentions.establish(CONDITION.CAPACITY_CHANGED)
  attentions.establish(CONDITION.MODE_PARAMETERS_CHANGED)
  attentions.establish(CONDITION.CAPACITY_CHANGED)
  t.ok(attentions.pending)
  t.equal(attentions.take(), CONDITION.CAPACITY_CHANGED)
  t.equal(attentions.take(), CONDITION.MODE_PARAMETERS_CHANGED)
  t.equal(attentions.take(), undefined)
})

t.test('a reset makes what was before it moot, not what comes after', async t => {
  const attentions = new Attentions()
  attentions.establish(CONDITION.CAPACITY_CHANGED)
  attentions.establish(CONDITION.UNIT_RESET_OCCURRED)
  attentions.establish(CONDITION.RESERVATIONS_PREEMPTED)
  t.equal(attentions.take(), CONDITION.UNIT_RESET_OCCURRED)
  t.equal(attentions.take(), CONDITION.RESERVATIONS_PREEMPTED)
  t.notOk(attentions.pending)
})
