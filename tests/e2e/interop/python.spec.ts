// The Python SDK in one room with a browser: media both ways, decoded on both sides, and data.
import { execFile, spawn, type ChildProcess } from 'node:child_process';
import path from 'node:path';
import readline from 'node:readline';
import { promisify } from 'node:util';
import { test, expect, type Browser, type Page } from '@playwright/test';
import { launch } from '../support/chromium.js';
import { startDemo, roomToken, type Demo } from '../support/demo.js';
import { expectMedia } from '../support/media.js';
import { openSdkPage, serveSdkPage, type SdkSite } from '../support/sdk.js';

interface Counted {
  frames: number;
  size: [number, number];
  audio_frames: number;
  loud: number;
  messages: number;
}

const folder = path.resolve(import.meta.dirname, '../../interop/python');
const interpreter = process.env.E2E_PYTHON ?? 'python3';
const script = path.join(folder, 'bars.py');
let demo: Demo;
let site: SdkSite;
let browser: Browser;
let page: Page;
let python: ChildProcess;
let counted: Counted = { frames: 0, size: [0, 0], audio_frames: 0, loud: 0, messages: 0 };
const said: string[] = [];

test.describe.configure({ mode: 'serial' });

test.beforeAll(async () => {
  demo = await startDemo();
  site = await serveSdkPage();
  browser = await launch();
  page = await openSdkPage(browser, site);
  const url = demo.url.replace('http', 'ws');
  const token = await roomToken('interop', 'browser');
  await page.evaluate(([u, t]) => window.bench.join(u, t), [url, token] as const);
  await page.evaluate(() => window.bench.publish());
  const args = [script, url, await roomToken('interop', 'python'), '110'];
  python = spawn(interpreter, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  readline.createInterface({ input: python.stdout! }).on('line', (line) => (counted = JSON.parse(line)));
  readline.createInterface({ input: python.stderr! }).on('line', (line) => said.push(line));
});

test.afterAll(async () => {
  python?.kill();
  await browser?.close();
  site?.close();
  await demo?.stop();
});

test.afterEach(({}, info) => {
  if (info.status !== info.expectedStatus) console.log([...said.slice(-20), ...demo.log.slice(-20)].join('\n'));
});

test('the browser decodes what Python sends', async () => {
  await expectMedia(page, { videos: 1, audio: true });
});

test('Python decodes what the browser sends', async () => {
  await expect.poll(() => counted.frames, { timeout: 30_000 }).toBeGreaterThan(20);
  const before = counted;
  await expect.poll(() => counted.frames, { timeout: 10_000 }).toBeGreaterThan(before.frames + 20);
  await expect.poll(() => counted.loud, { timeout: 10_000 }).toBeGreaterThan(before.loud);
  expect(counted.size[0]).toBeGreaterThan(0);
});

test('a message goes there and back', async () => {
  await page.evaluate(() => {
    const me = window.bench.room!.localParticipant;
    return me.publishData(new TextEncoder().encode('hello'), { reliable: true });
  });
  const answers = () => page.evaluate(() => window.bench.data.filter((d) => d.from === 'python').map((d) => d.text));
  await expect.poll(answers).toEqual(['echo: hello']);
});

test('everything that two Python participants do to each other', async () => {
  test.setTimeout(300_000);
  const env = { ...process.env, BEDSIDE_URL: demo.url };
  const { stderr } = await promisify(execFile)(interpreter, [path.join(folder, 'test_sdk.py')], { env });
  expect(stderr).toContain('OK');
});
