// `npm run bench [-- NAME [flags]]`: sets up, builds, runs the benchmarks in bench/ one after the other, or the one that is named.
import {spawnSync} from 'node:child_process'
import {readdirSync} from 'node:fs'
import {fileURLToPath} from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const [name, ...flags] = process.argv.slice(2)

run('node', ['scripts/setup.mjs'])
run('npm', ['run', '--silent', 'build'])
const known = readdirSync(new URL('../bench', import.meta.url))
  .filter(file => file.endsWith('.ts'))
  .map(file => file.slice(0, -3))
if (name !== undefined && !known.includes(name)) {
  console.error(`there is no benchmark "${name}": ${known.join(', ')}`)
  process.exit(2)
}
for (const one of name === undefined ? known : [name]) {
  console.log(`\n== ${one}`)
  run('node', [`dist/bench/${one}.js`, ...flags])
}

function run(command, args) {
  const {status} = spawnSync(command, args, {cwd: root, stdio: 'inherit'})
  if (status !== 0) process.exit(status ?? 1)
}
