// ICE-TCP: a network that lets no UDP through.
import { test, expect, type Browser, type Page } from '@playwright/test';
import { startDemo, roomToken, metric, type Demo } from './support/demo.js';
import { launch } from './support/chromium.js';
import { serveSdkPage, openSdkPage, type SdkSite } from './support/sdk.js';
import { expectMedia, used } from './support/media.js';

/** The page learns of our TCP candidates only. */
async function withoutUdp(page: Page): Promise<void> {
  await page.addInitScript(() => {
    type Apply = (description: RTCSessionDescriptionInit) => Promise<void>;
    const apply = RTCPeerConnection.prototype.setRemoteDescription as Apply;
    RTCPeerConnection.prototype.setRemoteDescription = async function (description) {
      const lines = (description.sdp ?? '').split('\r\n');
      const kept = lines.filter((line) => !/^a=candidate:\S+ \d udp /i.test(line));
      return apply.call(this, { type: description.type, sdp: kept.join('\r\n') });
    };
  });
}

test('one browser by TCP, one by UDP: media both ways, and again after a resume', async () => {
  let demo: Demo | undefined;
  let site: SdkSite | undefined;
  const browsers: Browser[] = [];
  try {
    demo = await startDemo();
    site = await serveSdkPage();
    const pages: Page[] = [];
    for (const identity of ['walled', 'free']) {
      const browser = await launch();
      browsers.push(browser);
      const page = await openSdkPage(browser, site, identity === 'walled' ? withoutUdp : undefined);
      const args = [demo.url.replace('http', 'ws'), await roomToken('tcp', identity)] as const;
      await page.evaluate(([url, token]) => window.bench.join(url, token), args);
      await page.evaluate(() => window.bench.publish());
      pages.push(page);
    }
    for (const page of pages) await expectMedia(page, { videos: 1, audio: true });
    expect((await used(pages[0]!)).map((u) => u.protocol)).toEqual(['tcp']);
    expect((await used(pages[1]!)).map((u) => u.protocol), 'UDP is preferred').toEqual(['udp']);
    expect(await metric(demo, 'bedside_tcp_connections')).toBeGreaterThanOrEqual(1);
    // Signal reconnect with an ICE restart: a new connection takes over from the old one.
    await pages[0]!.evaluate(() => window.bench.room!.simulateScenario('resume-reconnect'));
    await expect.poll(() => pages[0]!.evaluate(() => window.bench.room!.state), { timeout: 30_000 }).toBe('connected');
    for (const page of pages) await expectMedia(page, { videos: 1, audio: true });
    expect((await used(pages[0]!)).map((u) => u.protocol)).toEqual(['tcp']);
    expect(await metric(demo, 'bedside_tcp_dropped_total')).toBe(0);
  } finally {
    await Promise.all(browsers.map((b) => b.close()));
    site?.close();
    await demo?.stop();
  }
});
