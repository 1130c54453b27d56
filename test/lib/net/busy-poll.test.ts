import t from 'tap'
import {BusyPoll} from '../../../src/lib/net/busy-poll.js'

/** Waits, each after a turn with this many messages and bytes. */
function waits(poll: BusyPoll, count: number, milliseconds: number, happened = true, messages = 1, bytes = 4096): void {
  for (let wait = 0; wait < count; wait++) {
    poll.messages = messages
    poll.bytes = bytes
    poll.waited(milliseconds, happened)
  }
}

t.test('it sleeps until short waits have followed each other', async t => {
  const poll = new BusyPoll()
  t.notOk(poll.worthwhile)
  waits(poll, 3, 0.05)
  t.notOk(poll.worthwhile)
  waits(poll, 1, 0.05)
  t.ok(poll.worthwhile)
})

t.test('a few long ones end it, one after many short ones does not', async t => {
  const poll = new BusyPoll()
  waits(poll, 1000, 0.05)
  waits(poll, 1, 2, false)
  t.ok(poll.worthwhile)
  waits(poll, 3, 2, false)
  t.notOk(poll.worthwhile)
})

t.test('requests at a low rate, each with a short wait for its answer, never bring it about', async t => {
  const poll = new BusyPoll()
  for (let request = 0; request < 100; request++) {
    waits(poll, 2, 0.05)
    waits(poll, 1, 1)
    t.notOk(poll.worthwhile)
  }
})

t.test('turns with much to do end it', async t => {
  const poll = new BusyPoll()
  waits(poll, 16, 0.05)
  waits(poll, 4, 0.01, true, 20)
  t.notOk(poll.worthwhile, 'many messages')
  waits(poll, 16, 0.05)
  waits(poll, 4, 0.01, true, 1, 512 * 1024)
  t.notOk(poll.worthwhile, 'many bytes')
})

t.test('a limit of 0 turns it off', async t => {
  const poll = new BusyPoll()
  poll.limitMs = 0
  waits(poll, 100, 0)
  t.notOk(poll.worthwhile)
})
