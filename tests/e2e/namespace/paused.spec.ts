// A patient whose link gets too narrow for a picture: the server pauses it, the page says so in plain
// words, the voice goes on, and the picture comes back by itself.
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import readline from 'node:readline';
import { test, expect, type Browser } from '@playwright/test';
import { startDemo, metric, type Demo } from '../support/demo.js';
import { launch } from '../support/chromium.js';
import { expectMedia } from '../support/media.js';
import { admit, button, enterWaitingRoom, linkState, nameOf, openPage } from '../support/visit.js';

const address = '10.77.0.1';
const root = path.resolve(import.meta.dirname, '../../..');
const netimp = process.env.E2E_NETIMP ?? path.join(root, 'target/debug/bedside-netimp');
const near = `narrow${process.pid}`;

const profile = `about = "wide, then too narrow for a picture, then wide again"
[both]
delay_ms = 20
[down]
rate_kbit = 4000
queue_ms = 300
step = [{ at_s = 1, rate_kbit = 70 }, { at_s = 25, rate_kbit = 4000 }]
`;

test('a picture that does not fit is paused, told, and comes back', async () => {
  test.setTimeout(360_000);
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'bedside-paused-'));
  const file = path.join(folder, 'narrow.toml');
  fs.writeFileSync(file, profile);
  const link = spawn(netimp, ['--profile', file, '--near', near, '--create', '--number', '5'], { stdio: ['ignore', 'pipe', 'inherit'] });
  const gone = new Promise((resolve) => link.once('exit', resolve));
  const browsers: Browser[] = [];
  let demo: Demo | undefined;
  try {
    await new Promise<void>((resolve, reject) => {
      readline.createInterface({ input: link.stdout! }).once('line', () => resolve());
      link.once('exit', (code) => reject(new Error(`netimp ended with ${code}`)));
    });
    demo = await startDemo({ args: ['--host', address] });
    const args = [
      `--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE ${address}`,
      `--unsafely-treat-insecure-origin-as-secure=${demo.url}`,
    ];
    const inside = { executable: path.join(import.meta.dirname, '../links/chromium'), env: { E2E_INSIDE: near } };
    browsers.push(await launch({ args, ...inside }), await launch({ args }));
    const { page: patient } = await openPage(browsers[0]!, demo.patient_link);
    const { page: doctor } = await openPage(browsers[1]!, demo.doctor_link);
    await expect(patient.getByText('Your microphone works')).toBeVisible();
    const me = await nameOf(patient);
    await enterWaitingRoom(patient);
    await admit(doctor, me);
    await expect(button(patient, 'Leave')).toBeVisible();
    for (const page of [patient, doctor]) await expectMedia(page, { videos: 1, audio: true });
    await expect(linkState(patient)).toHaveText('Connected');
    link.kill('SIGUSR1');
    await expect(linkState(patient)).toHaveText('The picture is paused, the voice is safe', { timeout: 20_000 });
    // On a machine without a free moment it may have paused the doctor's for a while, too.
    expect(await metric(demo, 'bedside_paused'), 'the server has paused it').toBeGreaterThan(0);
    await expectMedia(patient, { videos: 0, audio: true });
    await expect(linkState(patient)).toHaveText('Connected', { timeout: 150_000 });
    await expectMedia(patient, { videos: 1, audio: true });
  } finally {
    await Promise.all(browsers.map((b) => b.close()));
    await demo?.stop();
    link.kill('SIGTERM');
    await gone;
    fs.rmSync(folder, { recursive: true });
  }
});
