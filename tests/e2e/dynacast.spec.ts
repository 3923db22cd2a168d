// What nobody looks at is not sent: livekit-client with dynacast and simulcast, unchanged.
import { test, expect, type Browser, type Page } from '@playwright/test';
import { startDemo, roomToken, type Demo } from './support/demo.js';
import { launch } from './support/chromium.js';
import { serveSdkPage, openSdkPage, type SdkSite } from './support/sdk.js';

let demo: Demo;
let site: SdkSite;
let browsers: Browser[] = [];
let sender: Page;
let viewer: Page;

async function join(page: Page, identity: string, options: object) {
  const token = await roomToken('dynacast', identity);
  const url = demo.url.replace('http', 'ws');
  return page.evaluate(([u, t, o]) => window.bench.join(u, t, o), [url, token, options] as const);
}

/** Video packets sent so far, by layer. */
const sent = (page: Page) =>
  page.evaluate(async () => {
    const packets: Record<string, number> = {};
    for (const peer of (window as unknown as { peers: RTCPeerConnection[] }).peers)
      (await peer.getStats()).forEach((s) => {
        if (s.type === 'outbound-rtp' && s.kind === 'video') packets[s.rid] = s.packetsSent;
      });
    return packets;
  });

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** The layers that gain packets within half a second. */
async function flowing(page: Page): Promise<string> {
  const before = await sent(page);
  await sleep(500);
  const after = await sent(page);
  return ['q', 'h', 'f'].filter((rid) => (after[rid] ?? 0) > (before[rid] ?? 0)).join('');
}

/** Waits until exactly these layers flow; returns the milliseconds that took. */
async function until(page: Page, layers: string, timeout: number): Promise<number> {
  const start = Date.now();
  await expect.poll(() => flowing(page), { timeout, intervals: [50] }).toBe(layers);
  return Date.now() - start;
}

const want = (quality: number) =>
  viewer.evaluate((q) => {
    for (const p of window.bench.room!.remoteParticipants.values())
      for (const t of p.videoTrackPublications.values()) {
        t.setVideoQuality(q);
        t.setSubscribed(true);
      }
  }, quality);

const height = () => viewer.evaluate(() => Math.max(0, ...[...document.querySelectorAll('video')].map((v) => v.videoHeight)));

test.describe.configure({ mode: 'serial' });

test.beforeAll(async () => {
  demo = await startDemo();
  site = await serveSdkPage();
  browsers = [await launch(), await launch()];
  sender = await openSdkPage(browsers[0]!, site);
  viewer = await openSdkPage(browsers[1]!, site);
});

test.afterAll(async () => {
  await Promise.all(browsers.map((b) => b.close()));
  site?.close();
  await demo?.stop();
});

test.afterEach(({}, info) => {
  if (info.status !== info.expectedStatus) console.log(demo.log.slice(-40).join('\n'));
});

test('nobody looks: nothing is sent after six seconds', async () => {
  await join(sender, 'sender', { dynacast: true });
  await sender.evaluate(() => window.bench.room!.localParticipant.setCameraEnabled(true));
  const published = Date.now();
  await expect.poll(() => flowing(sender)).not.toBe('');
  const took = await until(sender, '', 10_000);
  const all = Date.now() - published;
  console.log(`silent ${all} ms after publishing (${took} ms after the first packet)`);
  expect(all).toBeLessThan(7_500);
});

test('someone looks at the lowest: only that is sent', async () => {
  await viewer.evaluate(([u, t]) => window.bench.join(u, t), [
    demo.url.replace('http', 'ws'),
    await roomToken('dynacast', 'viewer'),
  ] as const);
  await want(0);
  await expect.poll(height).toBe(180);
  // The subscription began with the best, before the viewer said what it wants.
  console.log(`only q after ${await until(sender, 'q', 9_000)} ms`);
  await sleep(2_000);
  expect(await flowing(sender)).toBe('q');
});

test('someone wants the best: it comes at once', async () => {
  const start = Date.now();
  await want(2);
  await expect.poll(async () => Object.keys(await sent(sender)).length && (await flowing(sender)), { intervals: [20] }).toContain('f');
  const flows = Date.now() - start;
  await expect.poll(height, { intervals: [50] }).toBe(720);
  const shown = Date.now() - start;
  console.log(`f flows after ${flows} ms, is seen after ${shown} ms`);
  expect(flows).toBeLessThan(2_500);
});

test('the last one leaves: silence again, also after a resume', async () => {
  await viewer.evaluate(() => window.bench.room!.disconnect());
  console.log(`silent after ${await until(sender, '', 9_000)} ms`);
  await sender.evaluate(() => {
    const engine = window.bench.room!.engine as unknown as { client: { ws?: { close(): void } } };
    engine.client.ws?.close();
  });
  await expect.poll(() => sender.evaluate(() => window.bench.room!.state), { timeout: 30_000 }).toBe('connected');
  await sleep(3_000);
  expect(await flowing(sender)).toBe('');
});
