// Firefox ESR and Chromium in one call, in a namespace with a real address (see `run` beside this file).
import { test, expect, type Browser } from '@playwright/test';
import { startDemo, roomToken, type Demo } from '../support/demo.js';
import { launch } from '../support/chromium.js';
import { Firefox } from '../support/firefox.js';
import { serveSdkPage, openSdkPage, type SdkSite } from '../support/sdk.js';
import { expectMedia, type Evaluates } from '../support/media.js';

const address = '10.77.0.1';
const resolver = `--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost, EXCLUDE ${address}`;

test('Firefox and Chromium see and hear each other, exchange data and republish', async () => {
  let demo: Demo | undefined;
  let site: SdkSite | undefined;
  let firefox: Firefox | undefined;
  let browser: Browser | undefined;
  try {
    demo = await startDemo({ args: ['--host', address] });
    site = await serveSdkPage();
    firefox = await Firefox.launch(28_281);
    await firefox.goto(site.url);
    await expect.poll(() => firefox!.evaluate(() => document.title, undefined)).toBe('ready');
    await firefox.evaluate(() => {
      // The room keeps its connections to itself: collect them as they are made.
      const seen: RTCPeerConnection[] = [];
      (window as unknown as { peers: RTCPeerConnection[] }).peers = seen;
      const Native = window.RTCPeerConnection;
      window.RTCPeerConnection = class extends Native {
        constructor(...args: ConstructorParameters<typeof RTCPeerConnection>) {
          super(...args);
          seen.push(this);
        }
      };
    }, undefined);
    browser = await launch({ args: [resolver] });
    const chromium = await openSdkPage(browser, site);
    const url = demo.url.replace('http', 'ws');
    const sides: [Evaluates, string][] = [
      [firefox, await roomToken('foxes', 'fox')],
      [chromium, await roomToken('foxes', 'chrome')],
    ];
    for (const [page, token] of sides) {
      await page.evaluate(([u, t]) => window.bench.join(u, t).then(() => 1), [url, token] as [string, string]);
      await page.evaluate(() => window.bench.publish().then(() => 1), undefined);
    }
    await expectMedia(chromium, { videos: 1, audio: true });
    await expectMedia(firefox, { videos: 1, audio: true });
    for (const [page] of sides) {
      await page.evaluate(() => window.bench.room!.localParticipant.publishData(new TextEncoder().encode('hi'), { reliable: true }).then(() => 1), undefined);
    }
    for (const [page] of sides) {
      await expect.poll(() => page.evaluate(() => window.bench.data.map((d) => d.text), undefined)).toEqual(['hi']);
    }
    await firefox.evaluate(async () => {
      const me = window.bench.room!.localParticipant;
      await Promise.all([...me.trackPublications.values()].map((p) => me.unpublishTrack(p.track!)));
      await window.bench.publish();
    }, undefined);
    await expectMedia(chromium, { videos: 1, audio: true });
  } finally {
    await firefox?.close();
    await browser?.close();
    site?.close();
    await demo?.stop();
  }
});
