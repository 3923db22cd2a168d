// A second codec for those who cannot read the first: livekit-client with backup codecs, unchanged.
import { createHmac } from 'node:crypto';
import { test, expect, type Browser, type Page } from '@playwright/test';
import { launch } from './support/chromium.js';
import { startDemo, type Demo } from './support/demo.js';
import { explain } from './support/media.js';
import { openSdkPage, serveSdkPage, type SdkSite } from './support/sdk.js';

let demo: Demo;
let site: SdkSite;
let browser: Browser;
let pages: Page[] = [];

/** As the protocol numbers them. */
const policies = { simulcast: 1, regression: 2 };

function token(room: string, identity: string): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const video = { roomJoin: true, room };
  const exp = Math.floor(Date.now() / 1000) + 600;
  const text = `${part({ alg: 'HS256' })}.${part({ iss: demo.api_key, sub: identity, exp, video })}`;
  return `${text}.${createHmac('sha256', demo.api_secret).update(text).digest('base64url')}`;
}

/** A browser that has no decoder for a codec. */
const lacking = (codec: string) => async (page: Page) => {
  await page.addInitScript((mime) => {
    const { prototype } = window.RTCPeerConnection;
    const forget = (peer: RTCPeerConnection) => {
      const { codecs } = RTCRtpReceiver.getCapabilities('video')!;
      const left = codecs.filter((c) => c.mimeType.toLowerCase() !== mime);
      for (const t of peer.getTransceivers()) if (t.receiver.track.kind === 'video') t.setCodecPreferences(left);
    };
    const { createOffer, createAnswer } = prototype;
    prototype.createOffer = function (this: RTCPeerConnection, ...args: never[]) {
      forget(this);
      return (createOffer as (...all: never[]) => Promise<RTCSessionDescriptionInit>).apply(this, args);
    } as typeof createOffer;
    prototype.createAnswer = function (this: RTCPeerConnection, ...args: never[]) {
      forget(this);
      return (createAnswer as (...all: never[]) => Promise<RTCSessionDescriptionInit>).apply(this, args);
    } as typeof createAnswer;
  }, `video/${codec}`);
};

async function enter(room: string, identity: string, options: object, init?: (page: Page) => Promise<void>): Promise<Page> {
  const page = await openSdkPage(browser, site, init);
  pages.push(page);
  const args = [demo.url.replace('http', 'ws'), token(room, identity), options] as const;
  await page.evaluate(([url, jwt, more]) => window.bench.join(url, jwt, more), args);
  return page;
}

/** The codec of the pictures that were decoded since the last look, if only one was. */
async function shown(page: Page, before: Map<string, number>): Promise<string> {
  const now = await page.evaluate(async () => {
    const found: [string, string, number][] = [];
    for (const peer of (window as unknown as { peers: RTCPeerConnection[] }).peers) {
      const stats = await peer.getStats();
      stats.forEach((s) => {
        if (s.type === 'inbound-rtp' && s.kind === 'video') found.push([String(s.ssrc), stats.get(s.codecId)?.mimeType ?? '', s.framesDecoded ?? 0]);
      });
    }
    return found;
  });
  const moving = now.filter(([ssrc, , frames]) => frames > (before.get(ssrc) ?? 0));
  for (const [ssrc, , frames] of now) before.set(ssrc, frames);
  return moving.map(([, mime]) => mime.toLowerCase()).join();
}

async function expectCodec(page: Page, mime: string): Promise<void> {
  const before = new Map<string, number>();
  try {
    await expect.poll(() => shown(page, before), { timeout: 60_000, intervals: [1_000] }).toBe(mime);
  } catch (error) {
    throw new Error(`${error}\n${await explain(page)}`);
  }
}

test.beforeAll(async () => {
  demo = await startDemo();
  site = await serveSdkPage();
  browser = await launch();
});

test.afterAll(async () => {
  await browser?.close();
  site?.close();
  await demo?.stop();
});

test.afterEach(async ({}, info) => {
  for (const page of pages) await page.context().close();
  pages = [];
  if (info.status !== info.expectedStatus) console.log(demo.log.slice(-40).join('\n'));
});

for (const [codec, way, single] of [
  ['vp9', 'simulcast', true],
  ['vp9', 'regression', false],
  ['av1', 'regression', true],
] as const) {
  test(`${codec} with a backup by ${way}, over ${single ? 'one connection' : 'two connections'}`, async () => {
    const room = `${codec}-${way}`;
    const options = {
      singlePeerConnection: single,
      videoCaptureDefaults: { resolution: { width: 320, height: 180 } },
      publishDefaults: { videoCodec: codec, backupCodec: true, backupCodecPolicy: policies[way] },
    };
    const sender = await enter(room, 'sender', options);
    await sender.evaluate(() => window.bench.room!.localParticipant.setCameraEnabled(true));
    const able = await enter(room, 'able', options);
    await expectCodec(able, `video/${codec}`);
    const lacks = await enter(room, 'lacks', options, lacking(codec));
    await expectCodec(lacks, 'video/vp8');
    await expectCodec(able, way === 'simulcast' ? `video/${codec}` : 'video/vp8');
    // For everybody it is one track, as it was.
    for (const page of [able, lacks]) {
      const tracks = () => page.evaluate(() => [...window.bench.room!.remoteParticipants.get('sender')!.videoTrackPublications.values()].map((p) => p.mimeType?.toLowerCase()));
      expect(await tracks()).toEqual([`video/${codec}`]);
    }
  });
}

test('without a backup who lacks the codec is told so, and the others see', async () => {
  const options = {
    videoCaptureDefaults: { resolution: { width: 320, height: 180 } },
    publishDefaults: { videoCodec: 'vp9', backupCodec: false },
  };
  const sender = await enter('alone', 'sender', options);
  await sender.evaluate(() => window.bench.room!.localParticipant.setCameraEnabled(true));
  const lacks = await enter('alone', 'lacks', options, lacking('vp9'));
  await lacks.waitForFunction(() => window.bench.events.includes('trackSubscriptionFailed'), undefined, { timeout: 30_000 });
  const able = await enter('alone', 'able', options);
  await expectCodec(able, 'video/vp9');
});
