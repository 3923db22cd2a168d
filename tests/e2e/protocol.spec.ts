// livekit-client beyond the everyday: rights, refusals, codecs, many tracks, trouble made on purpose.
import { createHmac } from 'node:crypto';
import { test, expect, type Browser, type Page } from '@playwright/test';
import { launch } from './support/chromium.js';
import { startDemo, type Demo } from './support/demo.js';
import { expectMedia } from './support/media.js';
import { openSdkPage, serveSdkPage, type SdkSite } from './support/sdk.js';

let demo: Demo;
let site: SdkSite;
let browsers: Browser[] = [];
let pages: Page[] = [];
let number = 0;

interface Grant {
  [right: string]: unknown;
}

/** A room token as any server library makes it. */
function token(room: string, identity: string, grant: Grant = {}, exp = Math.floor(Date.now() / 1000) + 600): string {
  const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const video = { roomJoin: true, room, canUpdateOwnMetadata: true, ...grant };
  const head = `${part({ alg: 'HS256' })}.${part({ iss: demo.api_key, sub: identity, exp, video })}`;
  return `${head}.${createHmac('sha256', demo.api_secret).update(head).digest('base64url')}`;
}

async function join(page: Page, room: string, identity: string, options = {}, grant: Grant = {}): Promise<number> {
  const args = [demo.url.replace('http', 'ws'), token(room, identity, grant), options] as const;
  return page.evaluate(([url, jwt, more]) => window.bench.join(url, jwt, more), args);
}

/** Two pages that have just joined a room of their own. */
async function pair(options = {}): Promise<[Page, Page, string]> {
  const room = `protocol-${(number += 1)}`;
  const [alice, bob] = [pages[0]!, pages[1]!];
  await join(alice, room, 'alice', options);
  await join(bob, room, 'bob', options);
  return [alice, bob, room];
}

test.beforeAll(async () => {
  demo = await startDemo();
  site = await serveSdkPage();
  browsers = [await launch(), await launch()];
  for (const browser of browsers) pages.push(await openSdkPage(browser, site));
});

test.afterAll(async () => {
  await Promise.all(browsers.map((b) => b.close()));
  site?.close();
  await demo?.stop();
});

test.afterEach(async ({}, info) => {
  for (const page of pages) await page.evaluate(() => window.bench.room?.disconnect());
  for (const page of pages) await page.reload();
  for (const page of pages) await page.waitForFunction(() => document.title === 'ready');
  if (info.status !== info.expectedStatus) console.log(demo.log.slice(-40).join('\n'));
});

test('the SDK is told why it may not come in', async () => {
  const page = pages[0]!;
  const refusal = (jwt: string) =>
    page.evaluate(
      ([url, t]) =>
        window.bench.join(url, t).then(
          () => 'joined',
          (e) => `${window.bench.sdk.ConnectionErrorReason[e.reason]} ${e.status}`,
        ),
      [demo.url.replace('http', 'ws'), jwt] as const,
    );
  expect(await refusal('garbage')).toBe('NotAllowed 401');
  expect(await refusal(`${token('r', 'alice')}x`)).toBe('NotAllowed 401');
  expect(await refusal(token('r', 'alice', {}, 1_000_000_000))).toBe('NotAllowed 401');
  expect(await refusal(token('r', 'alice', { roomJoin: false }))).toBe('NotAllowed 401');
});

test('who may not publish is told so, and still receives', async () => {
  const [alice, , room] = await pair();
  await alice.evaluate(() => window.bench.publish());
  const guest = pages[1]!;
  await guest.evaluate(() => window.bench.room!.disconnect());
  await join(guest, room, 'guest', {}, { canPublish: false });
  const error = await guest.evaluate(() =>
    window.bench.room!.localParticipant.setMicrophoneEnabled(true).then(
      () => '',
      (e) => e.name,
    ),
  );
  expect(error).toBe('PublishTrackError');
  await expectMedia(guest, { videos: 1, audio: true });
});

test('one may take back who hears and sees, and give it again', async () => {
  const [alice, bob] = await pair();
  await alice.evaluate(() => window.bench.publish());
  await expectMedia(bob, { videos: 1, audio: true });
  await alice.evaluate(() => window.bench.room!.localParticipant.setTrackSubscriptionPermissions(false));
  const subscribed = () =>
    bob.evaluate(() => [...window.bench.room!.remoteParticipants.get('alice')!.trackPublications.values()].filter((p) => p.isSubscribed).length);
  await expect.poll(subscribed).toBe(0);
  await alice.evaluate(() => window.bench.room!.localParticipant.setTrackSubscriptionPermissions(true));
  await expect.poll(subscribed).toBe(2);
  await expectMedia(bob, { videos: 1, audio: true });
});

test('a subscriber takes no track, pauses one, and takes it again', async () => {
  const [alice, bob] = await pair();
  await alice.evaluate(() => window.bench.publish());
  await expectMedia(bob, { videos: 1, audio: true });
  const camera = (work: 'off' | 'on' | 'pause' | 'go') =>
    bob.evaluate((w) => {
      const { room, sdk } = window.bench;
      const track = room!.remoteParticipants.get('alice')!.getTrackPublication(sdk.Track.Source.Camera)!;
      const it = track as InstanceType<typeof sdk.RemoteTrackPublication>;
      if (w === 'off' || w === 'on') it.setSubscribed(w === 'on');
      else it.setEnabled(w === 'go');
    }, work);
  for (const [stop, go] of [['off', 'on'], ['pause', 'go']] as const) {
    await camera(stop);
    await expectMedia(bob, { videos: 0, audio: true });
    await camera(go);
    await expectMedia(bob, { videos: 1, audio: true });
  }
});

for (const codec of ['vp8', 'h264', 'vp9', 'av1'] as const) {
  test(`a camera in ${codec}`, async () => {
    const [alice, bob] = await pair({ publishDefaults: { videoCodec: codec } });
    await alice.evaluate(() => window.bench.publish());
    await expectMedia(bob, { videos: 1, audio: true }, 60_000);
    const mime = () => bob.evaluate(() => [...window.bench.room!.remoteParticipants.get('alice')!.videoTrackPublications.values()][0]?.mimeType?.toLowerCase());
    expect(await mime()).toBe(`video/${codec}`);
  });
}

test('a call with adaptive stream and dynacast', async () => {
  const [alice, bob] = await pair({ adaptiveStream: true, dynacast: true });
  for (const page of [alice, bob]) await page.evaluate(() => window.bench.publish());
  for (const page of [alice, bob]) await expectMedia(page, { videos: 1, audio: true });
});

test('ten pictures and ten sounds of one person', async () => {
  test.setTimeout(180_000);
  const [alice, bob] = await pair();
  await alice.evaluate(async () => {
    const { room } = window.bench;
    for (let n = 0; n < 10; n++) {
      const canvas = document.createElement('canvas');
      canvas.width = canvas.height = 64;
      const ink = canvas.getContext('2d')!;
      setInterval(() => {
        ink.fillStyle = `hsl(${(Date.now() / 20) % 360} 80% 50%)`;
        ink.fillRect(0, 0, 64, 64);
      }, 100);
      const [video] = canvas.captureStream(10).getVideoTracks();
      const audio = new AudioContext();
      const tone = audio.createOscillator();
      const end = audio.createMediaStreamDestination();
      tone.connect(end);
      tone.start();
      const [sound] = end.stream.getAudioTracks();
      const more = { simulcast: false, name: `n${n}` };
      await Promise.all([room!.localParticipant.publishTrack(video!, more), room!.localParticipant.publishTrack(sound!, more)]);
    }
  });
  await expectMedia(bob, { videos: 10, audio: true }, 90_000);
});

test('a screen beside the camera', async () => {
  const [alice, bob] = await pair();
  await alice.evaluate(() => window.bench.publish());
  await alice.evaluate(() => window.bench.room!.localParticipant.setScreenShareEnabled(true));
  await expectMedia(bob, { videos: 2, audio: true });
  const sources = () => bob.evaluate(() => [...window.bench.room!.remoteParticipants.get('alice')!.videoTrackPublications.values()].map((p) => p.source).sort());
  expect(await sources()).toEqual(['camera', 'screen_share']);
  await alice.evaluate(() => window.bench.room!.localParticipant.setScreenShareEnabled(false));
  await expectMedia(bob, { videos: 1, audio: true });
});

test('data goes to whom it is meant for, in the name of who sent it', async () => {
  const [alice, bob] = await pair();
  await alice.evaluate(() => window.bench.room!.localParticipant.publishData(new Uint8Array([1]), { reliable: true, destinationIdentities: ['bob'] }));
  await expect.poll(() => bob.evaluate(() => window.bench.data.map((d) => d.from))).toEqual(['alice']);
  await alice.evaluate(() => window.bench.room!.localParticipant.publishData(new Uint8Array([2]), { reliable: true, destinationIdentities: ['somebody else'] }));
  await alice.evaluate(() => window.bench.room!.localParticipant.publishData(new Uint8Array([3]), { reliable: true }));
  await expect.poll(() => bob.evaluate(() => window.bench.data.length)).toBe(2);
});
