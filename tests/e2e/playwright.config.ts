// Browser tests: real Chromium and Firefox against the real binary, which each test starts itself.
import { defineConfig } from '@playwright/test';

export default defineConfig({
  testDir: process.env.E2E_NAMESPACE ? 'namespace' : '.',
  // Foreign SDKs need their own installation first: scripts/test interop.
  testIgnore: process.env.E2E_NAMESPACE
    ? []
    : ['namespace/**', 'links/**', ...(process.env.E2E_PYTHON ? [] : ['interop/**'])],
  // Two encoders and two decoders per call already fill two cores.
  workers: 1,
  fullyParallel: false,
  retries: 0,
  forbidOnly: true,
  timeout: 120_000,
  expect: { timeout: 20_000 },
  reporter: [['list']],
  outputDir: 'test-results',
});
