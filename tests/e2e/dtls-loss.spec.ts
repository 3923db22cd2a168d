// Joins while a fifth of the DTLS datagrams is lost each way: every one connects, whoever is the DTLS client.
import { test, expect, type Browser, type Page } from '@playwright/test';
import { startDemo, roomToken, type Demo } from './support/demo.js';
import { launch } from './support/chromium.js';
import { serveSdkPage, openSdkPage, type SdkSite } from './support/sdk.js';
import { Forwarder } from './support/forwarder.js';

const joins = 60;
const atOnce = 6;

/**
 * What is sent offers the browser as DTLS server alone, so that we must be the client. The browser itself is told
 * `actpass`, the only thing it may offer (RFC 8842 §5.2), and takes our `active`.
 */
async function offerPassive(page: Page): Promise<void> {
  await page.addInitScript(() => {
    type Describe = (description?: RTCLocalSessionDescriptionInit) => Promise<void>;
    const peer = RTCPeerConnection.prototype;
    const create = peer.createOffer as (options?: RTCOfferOptions) => Promise<RTCSessionDescriptionInit>;
    const apply = peer.setLocalDescription as Describe;
    peer.createOffer = async function (this: RTCPeerConnection, options?: RTCOfferOptions) {
      const offer = await create.call(this, options);
      return { type: offer.type, sdp: offer.sdp?.replaceAll('a=setup:actpass', 'a=setup:passive') };
    } as typeof peer.createOffer;
    peer.setLocalDescription = async function (this: RTCPeerConnection, description) {
      const sdp = description?.sdp?.replaceAll('a=setup:passive', 'a=setup:actpass');
      return apply.call(this, { type: description?.type ?? 'offer', sdp });
    } as Describe;
  });
}

async function joinMany(page: Page, url: string, tokens: string[]): Promise<string[]> {
  return page.evaluate(
    async ([url, tokens]) => {
      const { Room } = window.bench.sdk;
      return Promise.all(
        tokens.map(async (token) => {
          const room = new Room();
          try {
            await room.connect(url, token, { maxRetries: 0 });
            return 'connected';
          } catch (error) {
            return String(error);
          } finally {
            await room.disconnect();
          }
        }),
      );
    },
    [url, tokens] as const,
  );
}

for (const role of ['passive', 'active'] as const) {
  test(`we are ${role} in DTLS`, async () => {
    test.setTimeout(300_000);
    let demo: Demo | undefined;
    let site: SdkSite | undefined;
    let browser: Browser | undefined;
    const forwarder = await Forwarder.open();
    forwarder.loseDtls(0.2, 20);
    try {
      demo = await startDemo();
      site = await serveSdkPage();
      browser = await launch();
      const page = await openSdkPage(browser, site, async (p) => {
        await forwarder.divert(p);
        if (role === 'active') await offerPassive(p);
      });
      const results: string[] = [];
      while (results.length < joins) {
        const numbers = [...Array(atOnce).keys()].map((i) => i + results.length);
        const tokens = await Promise.all(numbers.map((n) => roomToken('loss', `person-${n}`)));
        results.push(...(await joinMany(page, demo.url.replace('http', 'ws'), tokens)));
      }
      expect(forwarder.lost, 'datagrams were really lost').toBeGreaterThan(joins);
      expect(results.filter((r) => r !== 'connected')).toEqual([]);
    } finally {
      await browser?.close();
      forwarder.close();
      site?.close();
      await demo?.stop();
    }
  });
}
