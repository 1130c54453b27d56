import {readdirSync, readFileSync} from 'node:fs'
import {join} from 'node:path'
import {fileURLToPath} from 'node:url'
import t from 'tap'
import {findViolations, importsOf, type SourceFile} from './import-rules.js'

const root = fileURLToPath(new URL('../../../', import.meta.url))

function sources(): SourceFile[] {
  return readdirSync(join(root, 'src'), {recursive: true, encoding: 'utf8'})
    .filter(path => path.endsWith('.ts') && !path.includes('/generated/'))
    .map(path => ({path: `src/${path}`, text: readFileSync(join(root, 'src', path), 'utf8')}))
}

t.test('the sources keep the rules', async t => {
  const files = sources()
  t.ok(files.length > 5, 'found the sources')
  t.same(findViolations(files), [])
})

t.test('an import upwards is found', async t => {
  const violations = findViolations([{path: 'src/replica/data-server.ts', text: "import {x} from '../engine/volume.js'\n"}])
  t.match(violations, [/replica\/data-server\.ts: imports src\/engine\/volume\.js, which is above it/])
})

t.test('backups are below replicas and engines', async t => {
  const backup = (target: string): string[] => findViolations([{path: 'src/backup/create.ts', text: `import {x} from '${target}'\n`}])
  for (const target of ['../replica/open-replica.js', '../engine/volume.js', '../cli/progress.js']) t.match(backup(target), [/which is above it/])
  t.same(backup('../lib/errors.js'), [])
  t.same(findViolations([{path: 'src/replica/backup/backup-jobs.ts', text: "import {x} from '../../backup/create.js'\n"}]), [])
})

t.test('a multi-line, a dynamic and a type import upwards are found', async t => {
  const text = "import {\n  a,\n  b,\n} from '../cli/a.js'\nconst c = await import('../cli/b.js')\nimport type {d} from '../cli/c.js'\nexport * from '../cli/d.js'\n"
  t.equal(findViolations([{path: 'src/lib/x.ts', text}]).length, 4)
})

t.test('a package outside of its corner is found', async t => {
  t.match(findViolations([{path: 'src/engine/x.ts', text: "import {Command} from '@oclif/core'\n"}]), [/belongs to/])
  t.match(findViolations([{path: 'src/manager/x.ts', text: "import k8s from '@kubernetes/client-node'\n"}]), [/belongs to/])
  t.same(findViolations([{path: 'src/manager/store/kubernetes/x.ts', text: "import k8s from '@kubernetes/client-node'\n"}]), [])
})

t.test('a second file with the same single-file package is found', async t => {
  const text = "import {S3Client} from '@aws-sdk/client-s3'\n"
  const [a, b] = [{path: 'src/backup/store/s3.ts', text}, {path: 'src/backup/store/s3-list.ts', text}]
  t.same(findViolations([a]), [])
  t.match(findViolations([a, b]), [/keep it in one file/])
})

t.test('a file that is named after nothing is found', async t => {
  t.match(findViolations([{path: 'src/lib/utils.ts', text: ''}]), [/name the file/])
  t.match(findViolations([{path: 'src/engine/index.ts', text: ''}]), [/name the file/])
  t.same(findViolations([{path: 'src/commands/replica/index.ts', text: ''}]), [])
})

t.test('comments are not imports', async t => {
  t.same(importsOf("// import x from '../a.js'\n/* import y from '../b.js' */\nimport z from './c.js'\n"), ['./c.js'])
})
