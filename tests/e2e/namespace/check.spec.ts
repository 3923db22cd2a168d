// A connection check behind a wall against UDP: the page says what works instead.
import { execFileSync } from 'node:child_process';
import { test, expect, type Browser } from '@playwright/test';
import { finding, runCheck } from '../support/check.js';
import { startDemo, type Demo } from '../support/demo.js';
import { launch } from '../support/chromium.js';
import { openPage } from '../support/visit.js';

const address = '10.77.0.1';
const nft = (...words: string[]) => execFileSync('nft', words);

test('a check behind a wall against UDP finds the way by TCP', async () => {
  test.setTimeout(240_000);
  let demo: Demo | undefined;
  let browser: Browser | undefined;
  try {
    demo = await startDemo({ args: ['--host', address] });
    browser = await launch({
      args: [
        `--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE ${address}`,
        `--unsafely-treat-insecure-origin-as-secure=${demo.url}`,
      ],
    });
    nft('add', 'table', 'inet', 'wall');
    nft('add', 'chain', 'inet', 'wall', 'out', '{ type filter hook output priority 0 ; }');
    nft('add', 'rule', 'inet', 'wall', 'out', 'meta', 'l4proto', 'udp', 'counter', 'drop');
    const { page } = await openPage(browser, `${demo.url}/check`, { width: 360, height: 740 });
    await runCheck(page);
    await expect(finding(page, 'Picture and sound, direct way (UDP)')).toContainText(
      'Your network lets nothing through this way.',
    );
    await expect(finding(page, 'Picture and sound, direct way (TCP)')).toContainText('Works');
    await expect(finding(page, 'Quality of your connection')).toContainText('Works');
    await expect(page.getByText(/^A video consultation does not work/)).toHaveCount(0);
  } finally {
    execFileSync('nft', ['flush', 'ruleset']);
    await browser?.close();
    await demo?.stop();
  }
});
