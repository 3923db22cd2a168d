// Calls by relay alone, over UDP, TCP and TLS on the shared port; and what becomes of relays.
import { test, expect, type Browser, type Page } from '@playwright/test';
import { startDemo, newConsultation, roomToken, metric, type Demo } from './support/demo.js';
import { launch } from './support/chromium.js';
import { serveSdkPage, openSdkPage, type SdkSite } from './support/sdk.js';
import { expectMedia } from './support/media.js';
import { admit, button, enterWaitingRoom, nameOf, openPage } from './support/visit.js';
import { forceRelay, ways, type Way } from './support/relay.js';

let demo: Demo;
let site: SdkSite;
let browsers: Browser[] = [];

test.beforeAll(async () => {
  // Credentials that a call outlives.
  demo = await startDemo({ args: ['--tls-port', '0'], env: { BEDSIDE_TURN__CREDENTIAL_TTL: '10s' } });
  site = await serveSdkPage();
  const args = [`--ignore-certificate-errors-spki-list=${demo.spki_sha256}`];
  browsers = [await launch({ args }), await launch({ args })];
});

test.afterAll(async () => {
  await Promise.all(browsers.map((b) => b.close()));
  site?.close();
  await demo?.stop();
});

test.afterEach(async ({}, info) => {
  if (info.status !== info.expectedStatus) console.log(demo.log.slice(-40).join('\n'));
});

for (const way of ['udp', 'tcp', 'tls'] as Way[]) {
  test(`a consultation by relays over ${way} alone`, async () => {
    const links = await newConsultation(demo, 'VIDEO');
    const { page: patient } = await openPage(browsers[0]!, links.patient, undefined, forceRelay(way));
    const { page: doctor } = await openPage(browsers[1]!, links.doctor, undefined, forceRelay(way));
    const name = await nameOf(patient);
    await enterWaitingRoom(patient);
    await admit(doctor, name);
    for (const page of [patient, doctor]) {
      await expectMedia(page, { videos: 1, audio: true });
      expect(await ways(page)).toEqual([`relay/${way}`]);
    }
    await button(doctor, 'End call').click();
    await expect(patient.getByRole('heading', { name: 'The consultation has ended' })).toBeVisible();
    await expect.poll(() => metric(demo, 'bedside_turn_allocations')).toBe(0);
    await patient.context().close();
    await doctor.context().close();
  });
}

async function join(browser: Browser, identity: string, room: string): Promise<Page> {
  const page = await openSdkPage(browser, site, forceRelay('udp'));
  const args = [demo.url.replace('http', 'ws'), await roomToken(room, identity)] as const;
  await page.evaluate(([url, token]) => window.bench.join(url, token), args);
  await page.evaluate(() => window.bench.publish());
  return page;
}

test('a call outlives its credentials, and an ICE restart gets others', async () => {
  const pages = [await join(browsers[0]!, 'long', 'lasting'), await join(browsers[1]!, 'longer', 'lasting')];
  const started = Date.now();
  for (const page of pages) await expectMedia(page, { videos: 1, audio: true });
  await pages[0]!.waitForTimeout(Math.max(0, 11_000 - (Date.now() - started)));
  for (const page of pages) await expectMedia(page, { videos: 1, audio: true });
  const before = await pages[0]!.evaluate(() => window.credentials);
  const made = await metric(demo, 'bedside_turn_allocated_total');
  await pages[0]!.evaluate(() => window.bench.room!.simulateScenario('resume-reconnect'));
  await expect.poll(() => metric(demo, 'bedside_turn_allocated_total')).toBeGreaterThan(made);
  for (const page of pages) await expectMedia(page, { videos: 1, audio: true });
  const after = await pages[0]!.evaluate(() => window.credentials);
  expect(new Set(after).size).toBeGreaterThan(new Set(before).size);
  expect(await ways(pages[0]!)).toEqual(['relay/udp']);
  for (const page of pages) await page.context().close();
  await expect.poll(() => metric(demo, 'bedside_turn_allocations')).toBe(0);
});

test('who has left has no allocation 2 s later, and gets none', async () => {
  const page = await join(browsers[0]!, 'leaver', 'leaving');
  await expect.poll(() => metric(demo, 'bedside_turn_allocations')).toBeGreaterThan(0);
  const gather = () =>
    page.evaluate(async () => {
      const { peers } = window as unknown as { peers: RTCPeerConnection[] };
      const mine = peers.at(-1)!;
      const peer = mine.getConfiguration().iceServers?.length ? mine : peers[0]!;
      // A connection that is none of the room's, and stays open.
      const other = new RTCPeerConnection(peer.getConfiguration());
      other.createDataChannel('kept');
      let found = 0;
      other.addEventListener('icecandidate', (event) => (found += event.candidate ? 1 : 0));
      await other.setLocalDescription();
      while (other.iceGatheringState !== 'complete') await new Promise((resolve) => setTimeout(resolve, 50));
      return found;
    });
  const others = await metric(demo, 'bedside_turn_allocations');
  expect(await gather()).toBeGreaterThan(0);
  await expect.poll(() => metric(demo, 'bedside_turn_allocations')).toBeGreaterThan(others);
  await page.evaluate(() => window.bench.room!.disconnect());
  await expect.poll(() => metric(demo, 'bedside_participants')).toBe(0);
  const left = Date.now();
  await expect.poll(() => metric(demo, 'bedside_turn_allocations'), { intervals: [100] }).toBe(0);
  expect(Date.now() - left).toBeLessThan(2_000);
  expect(await gather()).toBe(0);
  await page.context().close();
});
