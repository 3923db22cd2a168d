// A call that loses a twentieth of its media each way: both legs ask again, get repair, and the picture goes on.
import { test, expect, type Browser, type Page } from '@playwright/test';
import { metric, startDemo, roomToken, type Demo } from './support/demo.js';
import { launch } from './support/chromium.js';
import { serveSdkPage, openSdkPage, type SdkSite } from './support/sdk.js';
import { expectMedia } from './support/media.js';
import { Forwarder } from './support/forwarder.js';

interface Inbound {
  /** Video: lost on its own stream, and repaired on the repair stream. */
  packets: number;
  lost: number;
  repaired: number;
  frames: number;
  freezes: number;
  /** Audio comes in the redundancy of later packets: what counts is what had to be made up. */
  samples: number;
  concealed: number;
}

async function inbound(page: Page): Promise<Inbound> {
  return page.evaluate(async () => {
    const sum = { packets: 0, lost: 0, repaired: 0, frames: 0, freezes: 0, samples: 0, concealed: 0 };
    for (const peer of (window as unknown as { peers: RTCPeerConnection[] }).peers) {
      (await peer.getStats()).forEach((s) => {
        if (s.type !== 'inbound-rtp') return;
        if (s.kind === 'audio') {
          sum.samples += s.totalSamplesReceived ?? 0;
          sum.concealed += (s.concealedSamples ?? 0) - (s.silentConcealedSamples ?? 0);
          return;
        }
        sum.packets += s.packetsReceived ?? 0;
        sum.lost += s.packetsLost ?? 0;
        sum.repaired += s.retransmittedPacketsReceived ?? 0;
        sum.frames += s.framesDecoded ?? 0;
        sum.freezes += s.freezeCount ?? 0;
      });
    }
    return sum;
  });
}

test('loss on both legs is repaired', async () => {
  let demo: Demo | undefined;
  let site: SdkSite | undefined;
  const browsers: Browser[] = [];
  const forwarder = await Forwarder.open();
  try {
    demo = await startDemo();
    site = await serveSdkPage();
    const pages: Page[] = [];
    for (const identity of ['alice', 'bob']) {
      const browser = await launch();
      browsers.push(browser);
      const page = await openSdkPage(browser, site, (p) => forwarder.divert(p));
      const args = [demo.url.replace('http', 'ws'), await roomToken('lossy', identity)] as const;
      await page.evaluate(([url, token]) => window.bench.join(url, token), args);
      await page.evaluate(() => window.bench.publish());
      pages.push(page);
    }
    for (const page of pages) await expectMedia(page, { videos: 1, audio: true });
    const names = ['nack_in', 'nack_out', 'rtx_in', 'rtx_out'];
    const counts = () => Promise.all(names.map((n) => metric(demo!, `bedside_${n}_total`)));
    const [before, start] = [await counts(), await Promise.all(pages.map(inbound))];
    forwarder.loseMedia(0.05, 5);
    await new Promise((resolve) => setTimeout(resolve, 15_000));
    const [after, end] = [await counts(), await Promise.all(pages.map(inbound))];
    const grown = Object.fromEntries(names.map((n, i) => [n, after[i]! - before[i]!]));
    console.log(JSON.stringify({ dropped: forwarder.lost, ...grown, end }));
    for (const name of names) expect(grown[name], name).toBeGreaterThan(20);
    for (const [i, now] of end.entries()) {
      const was = start[i]!;
      expect(now.repaired - was.repaired, 'repair reaches the browser').toBeGreaterThan(20);
      // One packet in twenty is dropped on each leg; what stays lost after repair is a small rest.
      const rest = (now.lost - was.lost - (now.repaired - was.repaired)) / (now.packets - was.packets);
      expect(rest, 'video lost for good').toBeLessThan(0.02);
      const audio = (now.concealed - was.concealed) / (now.samples - was.samples);
      expect(audio, 'audio made up').toBeLessThan(0.02);
      expect(now.frames - was.frames, 'frames in 15 s').toBeGreaterThan(150);
    }
  } finally {
    await Promise.all(browsers.map((b) => b.close()));
    forwarder.close();
    site?.close();
    await demo?.stop();
  }
});
