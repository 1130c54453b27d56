import t from 'tap'
import {execa} from 'execa'
import {shellWords, wrapCommand} from '../../scripts/quickstart/shell-words.js'

t.test('words come out of the shell as they went in', async t => {
  const words = ['plain', 'a b', "it's", '$HOME', '"Dirty":[a-z]*', '', 'unix:/tmp/x.sock', 'nbd+unix:///v?socket=/tmp/x', '~', '-']
  const {stdout} = await execa('sh', ['-c', `printf '%s\\n' ${shellWords(words).join(' ')}`])
  t.same(stdout.split('\n'), words)
  t.same(shellWords(['--listen', '127.0.0.1:0']), ['--listen', '127.0.0.1:0'], 'what needs no quotes gets none')
})

t.test('a long command is broken between flags', async t => {
  const words = ['engine', 'v', '--size', '1g', '--replica', 'tcp://a:1', '--replica', 'tcp://b:2']
  t.same(wrapCommand(words, 200), [words.join(' ')])
  t.same(wrapCommand(words, 28), ['engine v --size 1g', '--replica tcp://a:1', '--replica tcp://b:2'])
})

t.test('a word that is too long has a line to itself', async t => {
  t.same(wrapCommand(['a', 'x'.repeat(50), 'b'], 10), ['a', 'x'.repeat(50), 'b'])
})
