import {posix} from 'node:path'

/** The folders of src, top first. A file imports from its own folder and from those below it. */
export const FOLDERS = ['commands', 'cli', 'cluster', 'drivers', 'manager', 'engine', 'replica', 'backup', 'protocol', 'lib'] as const

/** Packages that are kept to one corner of the tree, so that they can be replaced there. */
export const CORNERS: readonly {readonly packages: RegExp; readonly allowed: RegExp}[] = [
  {packages: /^@oclif\//, allowed: /^src\/(commands|cli)\// },
  {packages: /^(ora|chalk)$/, allowed: /^src\/cli\// },
  {packages: /^@kubernetes\//, allowed: /^src\/(cluster|drivers|manager\/store\/kubernetes)\// },
  {packages: /^@aws-sdk\//, allowed: /^src\/backup\/store\/s3[^/]*\.ts$/ },
  {packages: /^koffi$/, allowed: /^src\/lib\// },
]

/** Packages that a single file may import. */
export const SINGLE_FILE_PACKAGES = [/^@aws-sdk\//]

/** Names that say nothing about what is inside, so that everything ends up there. oclif alone gives `index` a meaning. */
const EMPTY_NAMES = /^(?!src\/commands\/.*\/index\.ts$).*\/(index|utils?|helpers?|types|common|misc)\.ts$/

export interface SourceFile {
  /** Relative to the project, `src/lib/sizes.ts`. */
  readonly path: string
  readonly text: string
}

/** What breaks the rules, one readable line each. */
export function findViolations(files: readonly SourceFile[]): string[] {
  return [...files.flatMap(violationsOf), ...sharedPackages(files)]
}

function violationsOf({path, text}: SourceFile): string[] {
  const found: string[] = []
  if (EMPTY_NAMES.test(path)) found.push(`${path}: name the file after what is in it`)
  const level = levelOf(path)
  if (level === -1) return [...found, `${path}: not in a folder of src/: ${FOLDERS.join(', ')}`]
  for (const target of importsOf(text)) {
    if (target.startsWith('.')) {
      const imported = posix.join(posix.dirname(path), target)
      if (!imported.startsWith('src/')) found.push(`${path}: imports ${imported}, which is outside of src/`)
      else if (levelOf(imported) < level) found.push(`${path}: imports ${imported}, which is above it`)
    }
    for (const {packages, allowed} of CORNERS) {
      if (packages.test(target) && !allowed.test(path)) found.push(`${path}: imports ${target}, which belongs to ${allowed.source}`)
    }
  }
  return found
}

function sharedPackages(files: readonly SourceFile[]): string[] {
  return SINGLE_FILE_PACKAGES.flatMap(name => {
    const importers = files.filter(({text}) => importsOf(text).some(target => name.test(target))).map(({path}) => path)
    return importers.length > 1 ? [`${name.source} is imported by ${importers.join(' and ')}: keep it in one file`] : []
  })
}

function levelOf(path: string): number {
  const [, folder = ''] = path.split('/')
  return (FOLDERS as readonly string[]).indexOf(folder)
}

/** Static, dynamic and type imports and re-exports; not what comments say. */
export function importsOf(text: string): string[] {
  const code = text.replace(/\/\*[\s\S]*?\*\//g, '').replace(/^\s*\/\/.*$/gm, '')
  const pattern = /(?:^\s*(?:import|export)\b[^'"`;]*?\bfrom\s*|^\s*import\s*|\bimport\s*\(\s*)['"]([^'"]+)['"]/gm
  return [...code.matchAll(pattern)].map(([, target = '']) => target)
}
