// Firewalls and several addresses, in the namespace of its own that `run` makes.
import { execFileSync } from 'node:child_process';
import { test, expect, type Browser, type Page } from '@playwright/test';
import { startDemo, roomToken, type Demo } from '../support/demo.js';
import { launch } from '../support/chromium.js';
import { serveSdkPage, openSdkPage, type SdkSite } from '../support/sdk.js';
import { expectMedia, used } from '../support/media.js';

const address = '10.77.0.1';
const resolver = `--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost, EXCLUDE ${address}, EXCLUDE [fd77::1]`;
const nft = (...words: string[]) => execFileSync('nft', words);

/** A call of two browsers, each behind what `wall` puts up. */
async function call(room: string, flags: string[], wall: string[][], check: (pages: Page[]) => Promise<void>): Promise<void> {
  let demo: Demo | undefined;
  let site: SdkSite | undefined;
  const browsers: Browser[] = [];
  try {
    demo = await startDemo({ args: flags });
    site = await serveSdkPage();
    nft('add', 'table', 'inet', 'wall');
    nft('add', 'chain', 'inet', 'wall', 'out', '{ type filter hook output priority 0 ; }');
    for (const rule of wall) nft('add', 'rule', 'inet', 'wall', 'out', ...rule);
    const pages: Page[] = [];
    for (const identity of ['nurse', 'ward']) {
      const browser = await launch({ args: [resolver] });
      browsers.push(browser);
      const page = await openSdkPage(browser, site);
      const args = [demo.url.replace('http', 'ws'), await roomToken(room, identity)] as const;
      await page.evaluate(([url, token]) => window.bench.join(url, token), args);
      await page.evaluate(() => window.bench.publish());
      pages.push(page);
    }
    for (const page of pages) await expectMedia(page, { videos: 1, audio: true });
    await check(pages);
    expect(nft('list', 'ruleset').toString(), 'the wall was run into').toMatch(/counter packets [1-9]/);
  } finally {
    execFileSync('nft', ['flush', 'ruleset']);
    await Promise.all(browsers.map((b) => b.close()));
    site?.close();
    await demo?.stop();
  }
}

test('two browsers behind a wall against UDP have their call by TCP', async () => {
  await call('walled', ['--host', address], [['meta', 'l4proto', 'udp', 'counter', 'drop']], async (pages) => {
    for (const page of pages) expect(await used(page)).toEqual([{ protocol: 'tcp', address }]);
  });
});

test('of several advertised addresses the one that works is used: IPv6', async () => {
  const flags = ['--host', '::', '--advertise', address, '--advertise', '192.0.2.9', '--advertise', 'fd77::1'];
  await call('six', flags, [['ip', 'daddr', address, 'meta', 'l4proto', 'udp', 'counter', 'drop']], async (pages) => {
    for (const page of pages) expect(await used(page)).toEqual([{ protocol: 'udp', address: 'fd77::1' }]);
  });
});
