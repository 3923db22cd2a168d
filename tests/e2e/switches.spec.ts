// A hundred switches of layers in a browser, and the picture never stands still.
import { test, expect, type Browser, type Page } from '@playwright/test';
import { startDemo, roomToken, type Demo } from './support/demo.js';
import { launch } from './support/chromium.js';
import { serveSdkPage, openSdkPage, type SdkSite } from './support/sdk.js';
import { expectMedia } from './support/media.js';

interface Shown {
  freezes: number;
  frames: number;
  /** How often the picture had another height than a sample before. */
  changes: number;
}

/** Watches the only video of a page while its quality is changed at random, or not at all. */
async function watch(page: Page, switches: number, seed: number): Promise<Shown> {
  return page.evaluate(
    async ([switches, seed]) => {
      const { sdk, room } = window.bench;
      const { peers } = window as unknown as { peers: RTCPeerConnection[] };
      const read = async () => {
        let found = { freezes: 0, frames: 0, height: 0 };
        for (const peer of peers) {
          (await peer.getStats()).forEach((s) => {
            if (s.type !== 'inbound-rtp' || s.kind !== 'video' || !s.framesDecoded) return;
            found = { freezes: s.freezeCount, frames: s.framesDecoded, height: s.frameHeight };
          });
        }
        return found;
      };
      const track = [...room!.remoteParticipants.values()].flatMap((p) => [...p.videoTrackPublications.values()])[0]!;
      const qualities = [sdk.VideoQuality.LOW, sdk.VideoQuality.MEDIUM, sdk.VideoQuality.HIGH];
      let state = seed;
      const random = (n: number) => {
        state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
        return (state >>> 16) % n;
      };
      const before = await read();
      let [quality, changes, height] = [2, 0, before.height];
      for (let i = 0; i < Math.abs(switches); i++) {
        quality = (quality + 1 + random(2)) % 3;
        if (switches > 0) track.setVideoQuality(qualities[quality]!);
        await new Promise((resolve) => setTimeout(resolve, 450 + random(400)));
        const now = await read();
        if (now.height !== height) changes++;
        height = now.height;
      }
      const after = await read();
      return { freezes: after.freezes - before.freezes, frames: after.frames - before.frames, changes };
    },
    [switches, seed] as const,
  );
}

for (const [codec, switches] of [
  ['vp8', 60],
  ['vp9', 40],
] as const) {
  test(`${switches} switches of ${codec} without a freeze`, async () => {
    test.setTimeout(300_000);
    let demo: Demo | undefined;
    let site: SdkSite | undefined;
    const browsers: Browser[] = [];
    try {
      demo = await startDemo();
      site = await serveSdkPage();
      const pages: Page[] = [];
      for (const identity of ['shown', 'watching']) {
        const browser = await launch();
        browsers.push(browser);
        const page = await openSdkPage(browser, site);
        const args = [demo.url.replace('http', 'ws'), await roomToken('switches', identity)] as const;
        await page.evaluate(([url, token]) => window.bench.join(url, token), args);
        pages.push(page);
      }
      const [shown, watching] = pages as [Page, Page];
      await shown.evaluate(async (codec) => {
        const { sdk, room } = window.bench;
        const size = new sdk.VideoPreset(640, 360, 500_000, 20);
        await room!.localParticipant.setCameraEnabled(true, { resolution: size.resolution }, {
          videoCodec: codec,
          videoEncoding: size.encoding,
          backupCodec: false,
          videoSimulcastLayers: [new sdk.VideoPreset(160, 90, 80_000, 20), new sdk.VideoPreset(320, 180, 160_000, 20)],
        });
      }, codec);
      await expectMedia(watching, { videos: 1, audio: false });
      // A machine that is busy elsewhere makes a picture stand still without any switch, now and then.
      for (let attempt = 1; ; attempt++) {
        const quiet = await watch(watching, -20, attempt);
        const busy = await watch(watching, switches, 6 + attempt);
        console.log(`${codec}: ${JSON.stringify(busy)}; without switches ${JSON.stringify(quiet)}`);
        expect(busy.changes, 'the picture really changes').toBeGreaterThan(switches / 4);
        expect(busy.frames).toBeGreaterThan(switches * 5);
        if (busy.freezes <= quiet.freezes) break;
        expect(attempt, 'a freeze by switches comes again').toBeLessThan(3);
      }
    } finally {
      await Promise.all(browsers.map((b) => b.close()));
      site?.close();
      await demo?.stop();
    }
  });
}
