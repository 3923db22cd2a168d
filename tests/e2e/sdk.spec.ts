// livekit-client, unchanged, against our server: what any outside application relies on.
import { test, expect, type Browser, type Page } from '@playwright/test';
import { startDemo, roomToken, type Demo } from './support/demo.js';
import { launch } from './support/chromium.js';
import { serveSdkPage, openSdkPage, type SdkSite } from './support/sdk.js';
import { expectMedia } from './support/media.js';

let demo: Demo;
let site: SdkSite;
let browsers: Browser[] = [];
let alice: Page;
let bob: Page;

async function join(page: Page, identity: string, room = 'sdk') {
  const token = await roomToken(room, identity);
  const url = demo.url.replace('http', 'ws');
  return page.evaluate(([u, t]) => window.bench.join(u, t), [url, token] as const);
}

const forget = (page: Page) =>
  page.evaluate(() => {
    window.bench.events.length = 0;
    window.bench.data.length = 0;
    window.bench.texts.length = 0;
  });
const happened = (page: Page, name: string) =>
  page.waitForFunction((n) => window.bench.events.includes(n), name, { timeout: 30_000 });

test.describe.configure({ mode: 'serial' });

test.beforeAll(async () => {
  demo = await startDemo();
  site = await serveSdkPage();
  browsers = [await launch(), await launch()];
  alice = await openSdkPage(browsers[0]!, site);
  bob = await openSdkPage(browsers[1]!, site);
});

test.afterAll(async () => {
  await Promise.all(browsers.map((b) => b.close()));
  site?.close();
  await demo?.stop();
});

test.afterEach(({}, info) => {
  if (info.status !== info.expectedStatus) console.log(demo.log.slice(-40).join('\n'));
});

test('simulcast camera and microphone reach the other side, both ways', async () => {
  await join(alice, 'alice');
  await alice.evaluate(() => window.bench.publish());
  await join(bob, 'bob');
  await expectMedia(bob, { videos: 1, audio: true });
  await bob.evaluate(() => window.bench.publish());
  await expectMedia(alice, { videos: 1, audio: true });
});

test('the highest simulcast layer arrives, and the lowest when asked for', async () => {
  await expect.poll(async () => (await expectMedia(bob, { videos: 1, audio: true })).height, { timeout: 40_000 }).toBe(720);
  await bob.evaluate(() => {
    const { sdk, room } = window.bench;
    for (const p of room!.remoteParticipants.values())
      for (const t of p.videoTrackPublications.values()) t.setVideoQuality(sdk.VideoQuality.LOW);
  });
  const height = () => bob.evaluate(() => Math.max(...[...document.querySelectorAll('video')].map((v) => v.videoHeight)));
  await expect.poll(height, { timeout: 20_000 }).toBe(180);
  await bob.evaluate(() => {
    const { sdk, room } = window.bench;
    for (const p of room!.remoteParticipants.values())
      for (const t of p.videoTrackPublications.values()) t.setVideoQuality(sdk.VideoQuality.HIGH);
  });
  await expect.poll(height, { timeout: 20_000 }).toBe(720);
});

test('reliable and lossy data, in order where promised', async () => {
  await forget(bob);
  await alice.evaluate(async () => {
    const me = window.bench.room!.localParticipant;
    const text = (i: number) => new TextEncoder().encode(String(i));
    for (let i = 0; i < 50; i++) await me.publishData(text(i), { reliable: true, topic: 'r' });
    for (let i = 0; i < 50; i++) await me.publishData(text(i), { reliable: false, topic: 'l' });
    await me.publishData(new Uint8Array(60_000), { reliable: true, topic: 'big' });
  });
  const data = (topic: string) => bob.evaluate((t) => window.bench.data.filter((d) => d.topic === t), topic);
  await expect.poll(async () => (await data('r')).map((d) => d.text)).toEqual([...Array(50).keys()].map(String));
  await expect.poll(async () => (await data('l')).length).toBeGreaterThanOrEqual(45);
  await expect.poll(async () => (await data('big')).map((d) => d.bytes)).toEqual([60_000]);
  expect((await data('r')).every((d) => d.from === 'alice' && d.reliable)).toBe(true);
  expect(await alice.evaluate(() => window.bench.data.length)).toBe(0);
});

test('a text stream and an RPC', async () => {
  const text = 'How are you today? '.repeat(3000);
  await alice.evaluate((t) => window.bench.room!.localParticipant.sendText(t, { topic: 'notes' }), text);
  await expect.poll(() => bob.evaluate(() => window.bench.texts.map((t) => [t.text.length, t.from]))).toEqual([[text.length, 'alice']]);
  const call = { destinationIdentity: 'alice', method: 'echo', payload: 'pulse?' };
  const answer = await bob.evaluate((c) => window.bench.room!.localParticipant.performRpc(c), call);
  expect(answer).toBe('bob: pulse?');
});

test('mute, name and attributes are seen by the other side', async () => {
  await alice.evaluate(() => window.bench.room!.localParticipant.setMicrophoneEnabled(false));
  const muted = () => bob.evaluate(() => window.bench.room!.remoteParticipants.get('alice')!.isMicrophoneEnabled);
  await expect.poll(muted).toBe(false);
  await alice.evaluate(() => window.bench.room!.localParticipant.setMicrophoneEnabled(true));
  await expect.poll(muted).toBe(true);
  await expectMedia(bob, { videos: 1, audio: true });
});

test('tracks are taken back and published again', async () => {
  for (let round = 0; round < 3; round++) {
    await alice.evaluate(async () => {
      const me = window.bench.room!.localParticipant;
      await Promise.all([...me.trackPublications.values()].map((p) => me.unpublishTrack(p.track!)));
    });
    await expect.poll(() => bob.evaluate(() => window.bench.room!.remoteParticipants.get('alice')!.trackPublications.size)).toBe(0);
    await alice.evaluate(() => window.bench.publish());
    await expectMedia(bob, { videos: 1, audio: true });
  }
});

for (const scenario of ['signal-reconnect', 'resume-reconnect', 'full-reconnect'] as const) {
  test(`reconnect of the SDK: ${scenario}`, async () => {
    await forget(alice);
    await alice.evaluate((s) => {
      // One kind is a lost signal connection as the network makes it; the others are the SDK's own.
      if (s === 'signal-reconnect') {
        const engine = window.bench.room!.engine as unknown as { client: { ws?: { close(): void } } };
        engine.client.ws?.close();
        return;
      }
      return window.bench.room!.simulateScenario(s);
    }, scenario);
    await happened(alice, scenario === 'full-reconnect' ? 'reconnected' : 'signalReconnecting').catch(() => undefined);
    await expect.poll(() => alice.evaluate(() => window.bench.room!.state), { timeout: 30_000 }).toBe('connected');
    await expectMedia(bob, { videos: 1, audio: true });
    await expectMedia(alice, { videos: 1, audio: true });
    await forget(bob);
    await alice.evaluate(() => window.bench.room!.localParticipant.publishData(new TextEncoder().encode('after'), { reliable: true }));
    await expect.poll(() => bob.evaluate(() => window.bench.data.map((d) => d.text))).toEqual(['after']);
  });
}

test('a second join by the same identity replaces the first, and the first is told', async () => {
  const browser = await launch();
  browsers.push(browser);
  const twin = await openSdkPage(browser, site);
  await forget(bob);
  await join(twin, 'bob');
  await happened(bob, 'disconnected');
  await expectMedia(twin, { videos: 1, audio: true });
  await twin.evaluate(() => window.bench.room!.disconnect());
  await expect.poll(() => alice.evaluate(() => window.bench.room!.remoteParticipants.size)).toBe(0);
});
