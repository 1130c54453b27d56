/** Arguments as a shell would have to be given them. */
export function shellWords(argv: readonly string[]): string[] {
  return argv.map(word => (/^[\w%+,./:=@-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`))
}

/** Breaks a long command into lines, before its flags only, so that a flag stays with its value. */
export function wrapCommand(words: readonly string[], columns: number): string[] {
  const lines: string[] = []
  let line = ''
  for (const part of partsOf(words)) {
    if (line !== '' && line.length + 1 + part.length > columns) {
      lines.push(line)
      line = part
    } else {
      line = line === '' ? part : `${line} ${part}`
    }
  }
  return [...lines, line]
}

/** What must not be torn apart: a flag with its value, and every other word. */
function partsOf(words: readonly string[]): string[] {
  const parts: string[] = []
  for (const [index, word] of words.entries()) {
    const before = words[index - 1] ?? ''
    if (/^--[^=]+$/.test(before) && !word.startsWith('-')) parts[parts.length - 1] += ` ${word}`
    else parts.push(word)
  }
  return parts
}
