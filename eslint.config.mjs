import tseslint from 'typescript-eslint'

export default tseslint.config(
  {ignores: ['dist/', 'node_modules/', '.tap/', '**/generated/']},
  {
    files: ['**/*.ts'],
    extends: [tseslint.configs.base],
    languageOptions: {parserOptions: {projectService: true, tsconfigRootDir: import.meta.dirname}},
    linterOptions: {reportUnusedDisableDirectives: 'error'},
    rules: {
      // What goes wrong silently in asynchronous code.
      '@typescript-eslint/no-floating-promises': 'error',
      '@typescript-eslint/no-misused-promises': 'error',
      '@typescript-eslint/await-thenable': 'error',
      '@typescript-eslint/only-throw-error': 'error',
      '@typescript-eslint/prefer-promise-reject-errors': 'error',
      'no-async-promise-executor': 'error',
      'no-unsafe-finally': 'error',

      // What the types promise.
      '@typescript-eslint/no-explicit-any': 'error',
      '@typescript-eslint/no-unsafe-argument': 'error',
      '@typescript-eslint/no-unsafe-assignment': 'error',
      '@typescript-eslint/no-unsafe-call': 'error',
      '@typescript-eslint/no-unsafe-member-access': 'error',
      '@typescript-eslint/no-unsafe-return': 'error',
      '@typescript-eslint/no-unnecessary-type-assertion': 'error',
      '@typescript-eslint/no-base-to-string': 'error',
      '@typescript-eslint/switch-exhaustiveness-check': ['error', {considerDefaultExhaustiveForUnions: true}],
      // `!` is allowed: with noUncheckedIndexedAccess it is how code says that an index is in range by construction.
      '@typescript-eslint/no-non-null-assertion': 'off',

      // One way to write it.
      '@typescript-eslint/consistent-type-imports': ['error', {fixStyle: 'inline-type-imports'}],
      '@typescript-eslint/no-import-type-side-effects': 'error',
      '@typescript-eslint/no-unused-vars': ['error', {argsIgnorePattern: '^_', varsIgnorePattern: '^_'}],
      '@typescript-eslint/prefer-readonly': 'error',
      eqeqeq: 'error',
      'no-constant-binary-expression': 'error',
      'no-var': 'error',
      'object-shorthand': 'error',
      'prefer-const': 'error',
    },
  },
  {
    // What runs before anything is compiled.
    files: ['**/*.mjs', 'bin/longhorn'],
    languageOptions: {ecmaVersion: 2024, sourceType: 'module'},
    rules: {
      'no-unused-vars': ['error', {argsIgnorePattern: '^_', varsIgnorePattern: '^_'}],
      eqeqeq: 'error',
      'no-constant-binary-expression': 'error',
      'no-unsafe-finally': 'error',
      'no-var': 'error',
      'object-shorthand': 'error',
      'prefer-const': 'error',
    },
  },
  {
    // oclif finds a command by the default export of its file; everything else is exported by name.
    files: ['src/**/*.ts'],
    ignores: ['src/commands/**', 'src/cli/hooks/**'],
    rules: {
      'no-restricted-syntax': [
        'error',
        {selector: 'ExportDefaultDeclaration', message: 'Export by name.'},
        {selector: 'TSEnumDeclaration', message: 'Use an `as const` object.'},
      ],
    },
  },
  {
    files: ['test/**/*.ts'],
    rules: {
      '@typescript-eslint/no-unused-vars': ['error', {argsIgnorePattern: '^(_.*|t)$', varsIgnorePattern: '^_'}],
      // `t.test(…)` of tap returns a promise that the parent test already waits for.
      '@typescript-eslint/no-floating-promises': [
        'error',
        {allowForKnownSafePromises: [{from: 'package', package: '@tapjs/core', name: 'PromiseWithSubtest'}]},
      ],
    },
  },
)
