// Data tracks between livekit-client and the Python SDK, each over one connection and over two.
import { spawn, type ChildProcess } from 'node:child_process';
import path from 'node:path';
import readline from 'node:readline';
import { test, expect, type Browser, type Page } from '@playwright/test';
import { launch } from '../support/chromium.js';
import { startDemo, roomToken, type Demo } from '../support/demo.js';
import { openSdkPage, serveSdkPage, type SdkSite } from '../support/sdk.js';

interface Frame {
  from: string;
  track: string;
  text: string;
}

declare global {
  interface Window {
    dataFrames: Frame[];
    pulse: { unpublish(): Promise<void> };
  }
}

const script = path.resolve(import.meta.dirname, '../../interop/python/tracks.py');
let demo: Demo;
let site: SdkSite;
let browser: Browser;
let children: ChildProcess[] = [];
const said: string[] = [];

test.beforeAll(async () => {
  demo = await startDemo();
  site = await serveSdkPage();
  browser = await launch();
});

test.afterAll(async () => {
  for (const child of children) child.kill();
  await browser?.close();
  site?.close();
  await demo?.stop();
});

test.afterEach(({}, info) => {
  if (info.status !== info.expectedStatus) console.log([...said.slice(-20), ...demo.log.slice(-20)].join('\n'));
});

/** A page that publishes the track "pulse" and reads all others. */
async function page(room: string, identity: string, single: boolean): Promise<Page> {
  const opened = await openSdkPage(browser, site);
  const args = [demo.url.replace('http', 'ws'), await roomToken(room, identity), single] as const;
  await opened.evaluate(async ([url, token, singlePeerConnection]) => {
    await window.bench.join(url, token, { singlePeerConnection });
    const { sdk } = window.bench;
    const room = window.bench.room!;
    window.dataFrames = [];
    type Remote = Parameters<Parameters<typeof room.on<'dataTrackPublished'>>[1]>[0];
    const read = async (track: Remote) => {
      const reader = track.subscribe().getReader();
      for (let next = await reader.read(); !next.done; next = await reader.read()) {
        const text = new TextDecoder().decode(next.value.payload.slice(0, 40));
        window.dataFrames.push({ from: track.publisherIdentity, track: track.info.name, text });
      }
    };
    for (const them of room!.remoteParticipants.values()) for (const track of them.dataTracks.values()) void read(track);
    room!.on(sdk.RoomEvent.DataTrackPublished, (track) => void read(track));
    const mine = await room!.localParticipant.publishDataTrack({ name: 'pulse' });
    window.pulse = mine;
    let number = 0;
    setInterval(() => {
      // Every tenth frame takes many packets.
      const text = `pulse ${(number += 1)} `.padEnd(number % 10 ? 10 : 20_000, '.');
      if (mine.isPublished()) void mine.tryPush({ payload: new TextEncoder().encode(text) });
    }, 200);
  }, args);
  return opened;
}

async function python(room: string, identity: string, mode: string): Promise<Frame[]> {
  const args = [script, demo.url.replace('http', 'ws'), await roomToken(room, identity), mode];
  const child = spawn(process.env.E2E_PYTHON ?? 'python3', args, { stdio: ['pipe', 'pipe', 'pipe'] });
  children.push(child);
  const frames: Frame[] = [];
  readline.createInterface({ input: child.stdout! }).on('line', (line) => frames.push(JSON.parse(line)));
  readline.createInterface({ input: child.stderr! }).on('line', (line) => said.push(line));
  return frames;
}

for (const [mode, single] of [['one', true], ['two', false]] as const) {
  test(`frames go every way, over ${mode}`, async () => {
    const room = `tracks-${mode}`;
    const anna = await page(room, 'anna', single);
    const ben = await page(room, 'ben', single);
    const snake = await python(room, 'snake', mode);
    const read = (of: Page) => () => of.evaluate(() => window.dataFrames.map((f) => `${f.from} ${f.track} ${f.text.split(' ')[0]}`));
    for (const line of ['ben pulse pulse', 'snake breath breath']) await expect.poll(read(anna), { timeout: 60_000 }).toContain(line);
    for (const line of ['anna pulse pulse', 'snake breath breath']) await expect.poll(read(ben), { timeout: 60_000 }).toContain(line);
    for (const from of ['anna', 'ben']) {
      await expect.poll(() => snake.filter((f) => f.from === from && f.track === 'pulse').length, { timeout: 60_000 }).toBeGreaterThan(12);
    }
    await anna.evaluate(() => window.pulse.unpublish());
    const known = () => ben.evaluate(() => window.bench.room!.remoteParticipants.get('anna')!.dataTracks.size);
    await expect.poll(known).toBe(0);
    for (const child of children) child.kill();
    children = [];
    for (const one of [anna, ben]) await one.context().close();
  });
}
