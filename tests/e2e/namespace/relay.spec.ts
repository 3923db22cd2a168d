// Firefox by relay alone, and networks that let next to nothing out (see `run` beside this file).
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { test, expect, type Browser } from '@playwright/test';
import { startDemo, roomToken, type Demo } from '../support/demo.js';
import { launch } from '../support/chromium.js';
import { Firefox } from '../support/firefox.js';
import { serveSdkPage, openSdkPage, type SdkSite } from '../support/sdk.js';
import { expectMedia, used, type Evaluates } from '../support/media.js';
import { admit, button, enterWaitingRoom, nameOf, openPage } from '../support/visit.js';
import { forceRelayNow, ways, type Way } from '../support/relay.js';
import { Wire } from '../support/wire.js';

const address = '10.77.0.1';
const name = 'bedside.test';
const resolver = `--host-resolver-rules=MAP ${name} ${address}, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost, EXCLUDE ${address}, EXCLUDE 10.78.0.1`;
const secured = ['--host', address, '--tls-port', '443', '--tls-name', name];

test('Firefox has its call by relays over UDP, TCP and TLS alone', async () => {
  test.setTimeout(240_000);
  let demo: Demo | undefined;
  let site: SdkSite | undefined;
  let firefox: Firefox | undefined;
  let browser: Browser | undefined;
  try {
    demo = await startDemo({ args: secured });
    site = await serveSdkPage();
    firefox = await Firefox.launch(28_282);
    await firefox.trust(fs.readFileSync(demo.ca_file!, 'utf8'));
    browser = await launch({ args: [resolver] });
    for (const way of ['udp', 'tcp', 'tls'] as Way[]) {
      await firefox.goto(site.url);
      await expect.poll(() => firefox!.evaluate(() => document.title, undefined)).toBe('ready');
      await firefox.evaluate(() => {
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
      await forceRelayNow(firefox, way);
      const chromium = await openSdkPage(browser, site);
      const url = demo.url.replace('http', 'ws');
      const sides: [Evaluates, string][] = [
        [firefox, await roomToken(way, 'fox')],
        [chromium, await roomToken(way, 'chrome')],
      ];
      for (const [page, token] of sides) {
        await page.evaluate(([u, t]) => window.bench.join(u, t).then(() => 1), [url, token] as [string, string]);
        await page.evaluate(() => window.bench.publish().then(() => 1), undefined);
      }
      for (const [page] of sides) await expectMedia(page, { videos: 1, audio: true });
      const used = await ways(firefox);
      expect(used.length).toBeGreaterThan(0);
      for (const one of used) expect(one).toBe(`relay/${way}`);
      await firefox.evaluate(() => window.bench.room!.disconnect().then(() => 1), undefined);
      await chromium.context().close();
    }
  } catch (error) {
    console.log(demo?.log.slice(-30).join('\n'));
    throw error;
  } finally {
    await firefox?.close();
    await browser?.close();
    site?.close();
    await demo?.stop();
  }
});

const ward = 'bedside-ward';
const gateway = '10.78.0.1';
const sh = (line: string) => execFileSync('sh', ['-euc', line]);

/** A consultation of two browsers behind a line that only what `open` lets through passes. */
async function behind(open: string, proxy: Wire | undefined, check: (used: { protocol: string }[][]) => void): Promise<void> {
  let demo: Demo | undefined;
  const browsers: Browser[] = [];
  try {
    sh(`ip netns add ${ward}
      ip link add gate type veth peer name line netns ${ward}
      # A link-local address comes seconds later, and Chromium breaks off what it loads when one does.
      ip link set gate addrgenmode none
      ip -n ${ward} link set line addrgenmode none
      ip addr add ${gateway}/24 dev gate
      ip link set gate up
      ip -n ${ward} addr add 10.78.0.2/24 dev line
      ip -n ${ward} link set lo up
      ip -n ${ward} link set line up
      ip -n ${ward} route add default via ${gateway}
      nft add table inet wall
      nft "add chain inet wall in { type filter hook input priority 0 ; }"
      nft add rule inet wall in iifname gate ${open} accept
      nft add rule inet wall in iifname gate counter drop`);
    demo = await startDemo({ args: secured, env: { BEDSIDE_HTTP__PUBLIC_URL: `https://${name}` } });
    const args = [resolver, `--ignore-certificate-errors-spki-list=${demo.spki_sha256}`];
    const inside = { executable: path.join(import.meta.dirname, '../links/chromium'), env: { E2E_INSIDE: ward } };
    const proxied = proxy ? { proxy: proxy.url } : {};
    for (let person = 0; person < 2; person += 1) browsers.push(await launch({ args, ...inside, ...proxied }));
    const { page: patient } = await openPage(browsers[0]!, demo.patient_link);
    const { page: doctor } = await openPage(browsers[1]!, demo.doctor_link);
    const me = await nameOf(patient);
    await enterWaitingRoom(patient);
    await admit(doctor, me);
    await expect(button(patient, 'Leave')).toBeVisible();
    for (const page of [patient, doctor]) await expectMedia(page, { videos: 1, audio: true }, 60_000);
    const found = [];
    for (const page of [patient, doctor]) {
      console.log(`media goes by ${(await ways(page)).join()}`);
      found.push(await used(page));
    }
    check(found);
    const wall = execFileSync('nft', ['list', 'ruleset']).toString();
    if (!proxy) expect(wall, 'the wall was run into').toMatch(/counter packets [1-9]/);
  } catch (error) {
    console.log(demo?.log.slice(-30).join('\n'));
    throw error;
  } finally {
    await Promise.all(browsers.map((b) => b.close()));
    await demo?.stop();
    sh(`nft flush ruleset; ip netns delete ${ward} || true; ip link delete gate 2>/dev/null || true`);
  }
}

test('a network that lets only TCP 443 out has its consultation', async () => {
  test.setTimeout(180_000);
  await behind('tcp dport 443', undefined, (used) => expect(used.flat().length).toBe(2));
});

test('a network with only an HTTP CONNECT proxy has its consultation', async () => {
  test.setTimeout(180_000);
  const proxy = await Wire.open(gateway);
  try {
    const port = new URL(proxy.url).port;
    await behind(`tcp dport ${port}`, proxy, (used) => expect(used.flat().length).toBe(2));
    expect(proxy.tunnels, 'pages and media pass the proxy').toBeGreaterThan(2);
  } finally {
    proxy.close();
  }
});
