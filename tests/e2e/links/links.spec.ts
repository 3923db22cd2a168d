// Two browsers in a call, one of them behind a bad link; see docs/quality.md.
import { spawn, type ChildProcess } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import readline from 'node:readline';
import { test, type Browser, type Page } from '@playwright/test';
import { build } from 'esbuild';
import { startDemo, roomToken, type Demo } from '../support/demo.js';
import { launch, watchPeers } from '../support/chromium.js';
import type { Sample } from './page.js';
import { measured, received, recovery, rows, settle, watched, type Row } from './rows.js';
import { writeTable, type Entry } from './table.js';
import { writeVoice } from './voice.js';

const root = path.resolve(import.meta.dirname, '../../..');
const netimp = process.env.E2E_NETIMP ?? path.join(root, 'target/debug/bedside-netimp');
const results = path.join(import.meta.dirname, '../test-results/links');
/** The server's address in the namespace that `run` makes. */
const address = '10.78.0.1';
const near = `pat${process.pid}`;
const wanted = (process.env.E2E_LINKS ?? '').split(/[ ,]+/).filter((name) => name);
const seed = process.env.E2E_LINKS_SEED ?? '1';

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, Math.max(0, ms)));

class Link {
  private constructor(private process: ChildProcess, private gone: Promise<unknown>) {}

  static async open(name: string): Promise<Link> {
    const profile = path.join(root, `tests/netimp/profiles/link-${name}.toml`);
    const args = ['--profile', profile, '--seed', seed, '--near', near, '--create', '--summary', path.join(results, `${name}-link.json`), '--log', path.join(results, `${name}-link.csv`)];
    const child = spawn(netimp, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    const gone = new Promise((resolve) => child.once('exit', resolve));
    await new Promise<void>((resolve, reject) => {
      readline.createInterface({ input: child.stdout! }).once('line', () => resolve());
      child.once('error', reject);
      child.once('exit', (code) => reject(new Error(`netimp ended with ${code}`)));
    });
    return new Link(child, gone);
  }

  /** The times of the profile count from now. */
  restart(): void {
    this.process.kill('SIGUSR1');
  }

  async close(): Promise<void> {
    this.process.kill('SIGTERM');
    await this.gone;
  }
}

/** Chromium with a voice, in a namespace if one is named, and the page in it without a network. */
async function person(script: string, voice: string, inside?: string): Promise<[Browser, Page]> {
  const browser = await launch({
    args: [
      '--use-fake-device-for-media-stream=fps=20',
      `--use-file-for-fake-audio-capture=${voice}`,
      `--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE ${address}`,
    ],
    ...(inside ? { executable: path.join(import.meta.dirname, 'chromium'), env: { E2E_INSIDE: inside } } : {}),
  });
  // The page comes from nowhere, the server has a private address.
  const context = await browser.newContext({ permissions: ['local-network-access', 'camera', 'microphone'] });
  const page = await context.newPage();
  await watchPeers(page);
  await page.route('http://localhost/**', (route) => {
    const code = route.request().url().endsWith('.js');
    const html = '<!doctype html><meta charset=utf-8><title>loading</title><script type=module src=page.js></script>';
    return route.fulfill({ contentType: code ? 'text/javascript' : 'text/html', body: code ? script : html });
  });
  await page.goto('http://localhost/');
  await page.waitForFunction(() => document.title === 'ready');
  return [browser, page];
}

interface Call {
  patient: Sample[];
  doctor: Sample[];
  firstFrame: number;
  /** Milliseconds from the doctor's click to the patient's. */
  lead: number;
}

/** Both join; what both receive is sampled each second. */
async function call(row: Row, link: Link, demo: Demo, doctor: Page, patient: Page): Promise<Call> {
  const join = async (page: Page, identity: string) => {
    const args = [demo.url.replace('http', 'ws'), await roomToken(`link-${row.name}`, identity)] as const;
    return () => page.evaluate(([url, token]) => window.links.join(url, token), args);
  };
  const [doctorJoins, patientJoins] = [await join(doctor, 'doctor'), await join(patient, 'patient')];
  await doctorJoins();
  await sleep(3000);
  link.restart();
  const lead = (await doctor.evaluate(() => window.links.sample())).at;
  const joining = patientJoins();
  for (const page of [patient, doctor]) await page.waitForFunction(() => window.links.firstFrame, undefined, { timeout: 60_000, polling: 20 });
  await joining;
  const firstFrame = await patient.evaluate(() => window.links.firstFrame!);
  const samples: Call = { patient: [], doctor: [], firstFrame, lead };
  const start = Date.now();
  if (!row.worse) await sleep(settle * 1000);
  const begin = Date.now();
  const joined = await patient.evaluate(() => window.links.sample());
  const length = row.worse ? row.worse[1] + watched - joined.at / 1000 : measured;
  for (let n = 0; n <= length; n += 1) {
    await sleep(begin + n * 1000 - Date.now());
    const pair = await Promise.all([patient, doctor].map((page) => page.evaluate(() => window.links.sample())));
    samples.patient.push(pair[0]!);
    samples.doctor.push(pair[1]!);
  }
  console.log(`${row.name}: measured ${((Date.now() - begin) / 1000).toFixed(1)} s, first frame ${firstFrame.toFixed(0)} ms, ${((begin - start) / 1000).toFixed(0)} s later`);
  return samples;
}

function entry(row: Row, { patient, doctor, firstFrame, lead }: Call): Entry {
  const common = { name: row.name, firstFrame, load: os.loadavg()[0]!, date: new Date().toISOString() };
  if (!row.worse) return { ...common, patient: received(patient), doctor: received(doctor) };
  return { ...common, patientAfter: recovery(patient, row.worse, 0), doctorAfter: recovery(doctor, row.worse, -lead) };
}

async function measure(row: Row): Promise<Entry> {
  const closing: (() => Promise<unknown>)[] = [];
  try {
    const link = await Link.open(row.name);
    closing.unshift(() => link.close());
    const demo = await startDemo({ args: ['--host', address] });
    closing.unshift(() => demo.stop());
    const bundle = await build({ entryPoints: [path.join(import.meta.dirname, 'page.ts')], bundle: true, format: 'esm', write: false, logLevel: 'error' });
    const [script, voice] = [bundle.outputFiles[0]!.text, path.join(results, 'voice.wav')];
    writeVoice(voice);
    const [doctorBrowser, doctor] = await person(script, voice);
    closing.unshift(() => doctorBrowser.close());
    const [patientBrowser, patient] = await person(script, voice, near);
    closing.unshift(() => patientBrowser.close());
    const samples = await call(row, link, demo, doctor, patient);
    const metrics = await (await fetch(`${demo.url}/metrics`)).text();
    const descriptions = await Promise.all([patient, doctor].map((page) => page.evaluate(() => window.peers.map((peer) => [peer.localDescription?.sdp, peer.remoteDescription?.sdp]))));
    const found = entry(row, samples);
    fs.writeFileSync(path.join(results, `${row.name}.json`), JSON.stringify({ ...found, samples, descriptions }));
    fs.writeFileSync(path.join(results, `${row.name}-server.txt`), `${demo.log.join('\n')}\n\n${metrics}`);
    return found;
  } finally {
    for (const close of closing) await close();
  }
}

test.beforeAll(() => fs.mkdirSync(results, { recursive: true }));

for (const row of rows) {
  if (wanted.length > 0 && !wanted.includes(row.name)) continue;
  test(`${row.name}: ${row.words}`, async () => {
    const found = await measure(row);
    console.log(JSON.stringify(found));
    writeTable(found);
  });
}
