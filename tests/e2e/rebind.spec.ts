// A NAT that forgets its mapping in the middle of a call: media goes on, nobody reconnects.
import { test, expect, type Browser } from '@playwright/test';
import { startDemo, roomToken, type Demo } from './support/demo.js';
import { launch } from './support/chromium.js';
import { serveSdkPage, openSdkPage, type SdkSite } from './support/sdk.js';
import { expectMedia, longestAudioGap } from './support/media.js';
import { Forwarder } from './support/forwarder.js';

test('two browsers behind a forwarder whose mapping changes at 10 s', async () => {
  let demo: Demo | undefined;
  let site: SdkSite | undefined;
  const browsers: Browser[] = [];
  const forwarder = await Forwarder.open();
  try {
    demo = await startDemo();
    site = await serveSdkPage();
    const pages = [];
    for (const identity of ['alice', 'bob']) {
      const browser = await launch();
      browsers.push(browser);
      const page = await openSdkPage(browser, site, (p) => forwarder.divert(p));
      const args = [demo.url.replace('http', 'ws'), await roomToken('rebind', identity)] as const;
      await page.evaluate(([url, token]) => window.bench.join(url, token), args);
      await page.evaluate(() => window.bench.publish());
      pages.push(page);
    }
    for (const page of pages) await expectMedia(page, { videos: 1, audio: true });
    expect(forwarder.clients(), 'media really goes through the forwarder').toBeGreaterThanOrEqual(2);
    await new Promise((resolve) => setTimeout(resolve, 10_000));
    for (const page of pages) await page.evaluate(() => (window.bench.events.length = 0));
    forwarder.rebind();
    const gaps = await Promise.all(pages.map((page) => longestAudioGap(page, 8000)));
    for (const page of pages) await expectMedia(page, { videos: 1, audio: true });
    const events = await Promise.all(pages.map((page) => page.evaluate(() => window.bench.events)));
    console.log(`longest silence after the change: ${gaps.map((g) => `${Math.round(g)} ms`).join(', ')}`);
    expect(events.flat().filter((e) => /^(signalR|r)econnect|^disconnected/.test(e))).toEqual([]);
  } finally {
    await Promise.all(browsers.map((b) => b.close()));
    forwarder.close();
    site?.close();
    await demo?.stop();
  }
});
