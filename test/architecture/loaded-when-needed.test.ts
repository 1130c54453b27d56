import {readFileSync} from 'node:fs'
import {dirname, join, relative} from 'node:path'
import {fileURLToPath} from 'node:url'
import t from 'tap'

const sources = fileURLToPath(new URL('../../src/', import.meta.url))

/** What is loaded with a compiled file, by its static imports: paths below src, and packages. */
function loadedWith(file: string): string[] {
  const found = new Set<string>()
  const visit = (path: string): void => {
    const name = relative(sources, path)
    if (found.has(name)) return
    found.add(name)
    for (const [, target = ''] of readFileSync(path, 'utf8').matchAll(/^(?:import|export) (?:[^'"]*? from )?['"]([^'"]+)['"];?$/gm)) {
      if (target.startsWith('.')) visit(join(dirname(path), target))
      else found.add(target)
    }
  }
  visit(join(sources, file))
  return [...found]
}

t.test('a replica that makes no backup has nothing of it in memory', async t => {
  const loaded = loadedWith('replica/replica-server.js')
  t.ok(loaded.includes('replica/replica.js') && loaded.includes('@grpc/grpc-js'), 'found what is loaded')
  const light = ['backup/target-url.js', 'backup/transfer-progress.js']
  t.same(loaded.filter(name => (name.startsWith('backup/') && !light.includes(name)) || /lz4|lib\/nfs\/|aws-sdk/.test(name)), [])
})

t.test('an engine has nothing of stores in memory', async t => {
  const loaded = loadedWith('engine/engine-server.js')
  t.ok(loaded.includes('engine/engine.js'), 'found what is loaded')
  t.same(loaded.filter(name => /^backup\/(?!target-url\.js)|lz4|lib\/nfs\/|aws-sdk|^replica\//.test(name)), [])
})

t.test('an engine has no frontend in memory but its own, and no drivers', async t => {
  const loaded = [...loadedWith('engine/engine-server.js'), ...loadedWith('cli/frontend-kinds.js')]
  t.ok(loaded.includes('cli/device-frontends.js'), 'found what is loaded')
  t.same(loaded.filter(name => /^drivers\/|^execa|frontends\/(nbd|iscsi|socket)/.test(name)), [])
})

t.test('blocks are read and written without the SDK and the addon', async t => {
  const loaded = loadedWith('backup/create.js')
  t.same(loaded.filter(name => /lz4-napi|aws-sdk|lib\/nfs\//.test(name)), [])
  t.same(loadedWith('backup/store/open-store.js').filter(name => /aws-sdk|lib\/nfs\//.test(name)), [])
})
