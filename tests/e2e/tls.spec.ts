// The port with TLS: pages, signaling and media over one port, and who is told what.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import https from 'node:https';
import { test, expect, type Browser } from '@playwright/test';
import { launch } from './support/chromium.js';
import { roomToken, startDemo, type Demo } from './support/demo.js';
import { expectMedia, used } from './support/media.js';
import { openSdkPage, serveSdkPage } from './support/sdk.js';
import { admit, enterWaitingRoom, nameOf, openPage, say, expectMessage } from './support/visit.js';

let demo: Demo;
let browsers: Browser[] = [];

test.beforeAll(async () => {
  demo = await startDemo({ args: ['--tls-port', '0'] });
});

test.afterAll(async () => {
  await Promise.all(browsers.map((b) => b.close()));
  await demo?.stop();
});

/** A page of the server with TLS, trusted by the authority's file. */
function ask(path: string): Promise<{ status: number; headers: Record<string, unknown>; text: string }> {
  return new Promise((resolve, reject) => {
    const request = https.get(new URL(path, demo.tls_url), { ca: readFileSync(demo.ca_file!), family: 4 }, (answer) => {
      let text = '';
      answer.on('data', (part) => (text += part));
      answer.on('end', () => resolve({ status: answer.statusCode ?? 0, headers: answer.headers, text }));
    });
    request.on('error', reject);
  });
}

test('the demo tells how its certificate is trusted, and serves everything with it', async () => {
  expect(demo.tls_url).toMatch(/^https:\/\/localhost:\d+$/);
  const version = await ask('/version');
  expect(version.status).toBe(200);
  expect(version.headers['strict-transport-security'], 'nobody remembers a demo').toBeUndefined();
  expect((await ask('/livez')).text).toBe('ok\n');
  // Without TLS the same port leads to where there is some.
  const plain = await fetch(demo.tls_url!.replace('https', 'http'), { redirect: 'manual' });
  expect(plain.status).toBe(308);
  expect(plain.headers.get('location')).toBe(`${demo.tls_url}/`);
});

test('a consultation by pages that came with TLS: signaling, chat and media', async () => {
  const trusting = [`--ignore-certificate-errors-spki-list=${demo.spki_sha256}`];
  const secure = (link: string) => link.replace(demo.url, demo.tls_url!);
  browsers = [await launch({ args: trusting }), await launch({ args: trusting })];
  const patient = await openPage(browsers[0]!, secure(demo.patient_link));
  const doctor = await openPage(browsers[1]!, secure(demo.doctor_link));
  const sockets: string[] = [];
  for (const { page } of [patient, doctor]) page.on('websocket', (socket) => sockets.push(socket.url()));
  const name = await nameOf(patient.page);
  await enterWaitingRoom(patient.page);
  await admit(doctor.page, name);
  for (const { page } of [patient, doctor]) await expectMedia(page, { videos: 1, audio: true });
  await say(doctor.page, 'Good morning');
  await expectMessage(patient.page, 'Good morning');
  expect(sockets.length).toBeGreaterThan(1);
  for (const url of sockets) expect(url).toContain(`wss://${new URL(demo.tls_url!).host}/`);
  expect([...patient.complaints, ...doctor.complaints]).toEqual([]);
});

test('media over TCP comes in by the port with TLS', async () => {
  const port = Number(new URL(demo.tls_url!).port);
  const browser = await launch();
  browsers.push(browser);
  const site = await serveSdkPage();
  try {
    const page = await openSdkPage(browser, site, async (page) => {
      // The page learns of our candidate on that port only.
      await page.addInitScript((port) => {
        type Apply = (description: RTCSessionDescriptionInit) => Promise<void>;
        const apply = RTCPeerConnection.prototype.setRemoteDescription as Apply;
        RTCPeerConnection.prototype.setRemoteDescription = async function (description) {
          const lines = (description.sdp ?? '').split('\r\n');
          const candidate = /^a=candidate:\S+ \d \S+ \d+ \S+ (\d+) /i;
          const kept = lines.filter((line) => Number(candidate.exec(line)?.[1] ?? port) === port);
          return apply.call(this, { type: description.type, sdp: kept.join('\r\n') });
        };
      }, port);
    });
    const args = [demo.url.replace('http', 'ws'), await roomToken('shared', 'walled')] as const;
    await page.evaluate(([url, token]) => window.bench.join(url, token), args);
    await page.evaluate(() => window.bench.publish());
    const protocols = () => used(page).then((pairs) => pairs.map((pair) => pair.protocol));
    await expect.poll(protocols, { timeout: 60_000 }).toEqual(['tcp']);
    const text = await (await fetch(`${demo.url}/metrics`)).text();
    expect(text).toMatch(/^bedside_edge_connections_total\{kind="ice_tcp"\} [1-9]/m);
  } finally {
    site.close();
  }
});

test('a weak protocol or suite gets no answer', async () => {
  const at = new URL(demo.tls_url!).host.replace('localhost', '127.0.0.1');
  const connect = async (...args: string[]) => {
    // Without a word from us it goes as soon as the handshake is done.
    const client = spawn('openssl', ['s_client', '-connect', at, '-brief', ...args], { stdio: 'ignore' });
    const [code] = await once(client, 'exit');
    return code === 0 ? 'accepted' : 'refused';
  };
  // By names of OpenSSL: without forward secrecy, without AEAD; at the lowest level it offers what it has.
  for (const weak of ['kRSA', 'ECDHE+SHA', 'ECDHE+SHA384', 'DHE', 'aNULL', '3DES'])
    expect(await connect('-tls1_2', '-cipher', `${weak}:!AESGCM:!CHACHA20:@SECLEVEL=0`), weak).toBe('refused');
  for (const old of ['-tls1', '-tls1_1']) expect(await connect(old, '-cipher', 'ALL:@SECLEVEL=0'), old).toBe('refused');
  expect(await connect('-tls1_2')).toBe('accepted');
  expect(await connect('-tls1_3')).toBe('accepted');
});
