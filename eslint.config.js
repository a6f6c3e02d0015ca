// Type-aware rules over all TypeScript. Layout is prettier's business; the arrows between folders,
// file lengths and left-overs are checked by test/unit/tree.
import tseslint from 'typescript-eslint'

const NO_DEFAULT_EXPORT = {
  selector: 'ExportDefaultDeclaration',
  message: 'Name what you export: one name for one thing everywhere.',
}

export default tseslint.config(
  {
    ignores: [
      'build/',
      'bin/',
      'node_modules/',
      '.tap/',
      'completion/',
      'tap-snapshots/',
      '**/*.js',
      '**/*.cjs',
      '**/*.mjs',
    ],
  },
  { linterOptions: { reportUnusedDisableDirectives: 'error' } },
  {
    files: ['**/*.ts'],
    extends: [tseslint.configs.strictTypeChecked],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      eqeqeq: 'error',
      'no-restricted-syntax': ['error', NO_DEFAULT_EXPORT],
      'prefer-const': 'error',
      '@typescript-eslint/ban-ts-comment': ['error', { minimumDescriptionLength: 12 }],
      '@typescript-eslint/consistent-type-imports': ['error', { fixStyle: 'inline-type-imports' }],
      '@typescript-eslint/switch-exhaustiveness-check': ['error', { considerDefaultExhaustiveForUnions: true }],
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_' }],
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true, allowBoolean: true }],
      // Both say nothing about correctness, and `() => send(x)` reads better than a block.
      '@typescript-eslint/no-confusing-void-expression': 'off',
      '@typescript-eslint/require-await': 'off',
      // Does not see that a field may change while something is awaited: following it would remove needed checks.
      '@typescript-eslint/no-unnecessary-condition': 'off',
    },
  },
  {
    // What reaches a terminal goes through src/cli/print.ts; what reaches the log through pino.
    files: ['src/**/*.ts', 'cmd/**/*.ts'],
    rules: { 'no-console': 'error' },
  },
  {
    files: ['test/**/*.ts', 'bench/**/*.ts'],
    rules: {
      // tap runs `t.test` in order whether or not its promise is awaited; every other promise is checked.
      '@typescript-eslint/no-floating-promises': [
        'error',
        { allowForKnownSafePromises: [{ from: 'package', name: 'PromiseWithSubtest', package: '@tapjs/core' }] },
      ],
    },
  },
)
