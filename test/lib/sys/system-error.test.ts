import t from 'tap'
import {optionalLibcFunction} from '../../../src/lib/sys/libc.js'
import {errnoText, systemError} from '../../../src/lib/sys/system-error.js'

t.test('errors look like those of Node', async t => {
  t.match(systemError('pwrite', 28, 'writing'), {
    name: 'SystemError',
    code: 'ENOSPC',
    errno: -28,
    syscall: 'pwrite',
    message: 'ENOSPC: no space left on device, writing',
  })
  t.match(systemError('x', 122, 'writing'), {code: 'EDQUOT', message: /disk quota exceeded/})
  t.match(systemError('x', 4711, 'writing'), {code: 'E4711', message: 'E4711: unknown error 4711, writing'})
})

t.test('the text of a code', async t => {
  t.equal(errnoText('EIO'), 'i/o error')
  t.equal(errnoText('EDQUOT'), 'disk quota exceeded')
  t.equal(errnoText('EWHATEVER'), 'EWHATEVER')
})

t.test('a function that the C library does not have', async t => {
  t.equal(optionalLibcFunction('int no_such_function_here()'), undefined)
  t.type(optionalLibcFunction('int getppid()'), 'function')
})
