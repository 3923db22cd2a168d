// Four pages from one workspace; every asset is a file of our own under /assets/, so that the
// strict Content-Security-Policy needs no exception (nothing is inlined as a data: URL or script).
import { resolve } from 'node:path';
import { defineConfig } from 'vitest/config';

const page = (name: string) => resolve(import.meta.dirname, name);
const server = process.env.BEDSIDE_URL ?? 'http://127.0.0.1:8000';

export default defineConfig({
  appType: 'mpa',
  build: {
    target: 'es2022',
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    rollupOptions: {
      input: {
        index: page('index.html'),
        visit: page('visit.html'),
        doctor: page('doctor.html'),
        check: page('check.html'),
      },
    },
    manifest: '.vite/manifest.json',
    chunkSizeWarningLimit: 800,
  },
  server: {
    proxy: { '/api': { target: server, ws: true }, '/rtc': { target: server, ws: true } },
  },
  test: { environment: 'node', include: ['test/**/*.test.{ts,tsx}'] },
});
