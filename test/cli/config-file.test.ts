import {join} from 'node:path'
import t from 'tap'
import {readSettings} from '../../src/cli/config-file.js'
import {sample} from './run-program.js'

t.test('a setting comes from the flag, then the environment, then the config file', async t => {
  const dir = t.testdir({'config.yaml': 'manager: http://file\nretries: 7\n'})
  const file = {LONGHORN_CONFIG: join(dir, 'config.yaml')}
  const environment = {...file, LONGHORN_MANAGER: 'http://environment', LONGHORN_RETRIES: '8'}
  t.match(await sample(['print']), {stdout: 'manager=undefined retries=undefined'})
  t.match(await sample(['print'], file), {stdout: 'manager=http://file retries=7'})
  t.match(await sample(['print'], environment), {stdout: 'manager=http://environment retries=8'})
  t.match(await sample(['print', '--manager', 'http://flag'], environment), {stdout: 'manager=http://flag retries=8'})
})

t.test('the output format is such a setting', async t => {
  const dir = t.testdir({'config.yaml': 'output: json\n'})
  const file = {LONGHORN_CONFIG: join(dir, 'config.yaml')}
  t.match(await sample(['print'], file), {stdout: /^\{/})
  t.match(await sample(['print'], {...file, LONGHORN_OUTPUT: 'text'}), {stdout: /^manager/})
  t.match(await sample(['print', '--json'], {...file, LONGHORN_OUTPUT: 'text'}), {stdout: /^\{/})
  t.match(await sample(['print', '-o', 'text'], file), {stdout: /^manager/})
})

t.test('the file is looked for in XDG_CONFIG_HOME, or else in ~/.config', async t => {
  const dir = t.testdir({longhorn: {'config.yaml': 'manager: xdg'}, '.config': {longhorn: {'config.yaml': 'manager: home'}}})
  t.same(await readSettings({XDG_CONFIG_HOME: dir, HOME: dir}), {manager: 'xdg'})
  t.same(await readSettings({HOME: dir}), {manager: 'home'})
})

t.test('a file that is not there is no settings, unless it was asked for', async t => {
  const dir = t.testdir({})
  t.same(await readSettings({HOME: dir}), {})
  await t.rejects(readSettings({LONGHORN_CONFIG: join(dir, 'none.yaml')}), {code: 'LH_USAGE', message: /none\.yaml/})
})

t.test('a file that is empty is no settings', async t => {
  const dir = t.testdir({'config.yaml': '# nothing yet\n'})
  t.same(await readSettings({LONGHORN_CONFIG: join(dir, 'config.yaml')}), {})
})

t.test('a file that is wrong is a usage error that names it', async t => {
  const dir = t.testdir({'list.yaml': '- a\n', 'broken.yaml': 'a: [\n', 'map.yaml': 'manager: {a: 1}\n'})
  for (const name of ['list.yaml', 'broken.yaml']) {
    await t.rejects(readSettings({LONGHORN_CONFIG: join(dir, name)}), {code: 'LH_USAGE', message: new RegExp(name)}, name)
  }
  t.match(await sample(['print'], {LONGHORN_CONFIG: join(dir, 'broken.yaml')}), {exitCode: 2, stderr: /^Error: config file .*broken\.yaml/})
  t.match(await sample(['print'], {LONGHORN_CONFIG: join(dir, 'map.yaml')}), {exitCode: 2, stderr: /"manager" must be a single value/})
})
