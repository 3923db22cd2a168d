// Checks the built pages against their budgets (JavaScript, gzip -9): what loads with a page before
// a call, and the call's own chunk. Run after `vite build`; exits with 1 when a budget is exceeded.
import { readFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';

const DIST = new URL('../dist/', import.meta.url);
const KIB = 1024;
const BUDGETS = [
  { name: 'patient page before the call', entry: 'visit.html', limit: 60 * KIB },
  { name: 'doctor page before the call', entry: 'doctor.html', limit: 60 * KIB },
  { name: 'check page before it begins', entry: 'check.html', limit: 60 * KIB },
  { name: 'call', entry: 'src/shared/call/call.ts', limit: 180 * KIB, beyond: 'visit.html' },
];

const manifest = JSON.parse(readFileSync(new URL('.vite/manifest.json', DIST), 'utf8'));

/** The files that come with an entry through static imports. */
function filesOf(entry, seen = new Set()) {
  const chunk = manifest[entry];
  if (!chunk) throw new Error(`the build has no ${entry}`);
  if (seen.has(chunk.file)) return seen;
  seen.add(chunk.file);
  for (const name of chunk.imports ?? []) filesOf(name, seen);
  return seen;
}

const gzipped = (file) => gzipSync(readFileSync(new URL(file, DIST)), { level: 9 }).length;

let exceeded = false;
for (const { name, entry, limit, beyond } of BUDGETS) {
  const files = filesOf(entry);
  for (const file of beyond ? filesOf(beyond) : []) files.delete(file);
  const size = [...files].reduce((sum, file) => sum + gzipped(file), 0);
  const verdict = size > limit ? 'TOO LARGE' : 'ok';
  exceeded ||= size > limit;
  console.log(`${name}: ${(size / KIB).toFixed(1)} KiB of ${limit / KIB} KiB gzip, ${verdict}`);
}
process.exit(exceeded ? 1 : 0);
