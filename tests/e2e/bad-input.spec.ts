// Hostile input beside a running call: every piece gets an error or a counted drop, and the call goes on.
import crypto from 'node:crypto';
import dgram from 'node:dgram';
import { test, expect, type Browser, type Page } from '@playwright/test';
import { AddTrackRequest, JoinRequest, SignalRequest, SignalResponse, TrackType, WrappedJoinRequest } from '@livekit/protocol';
import WebSocket from 'ws';
import { metric, startDemo, roomToken, type Demo } from './support/demo.js';
import { launch } from './support/chromium.js';
import { serveSdkPage, openSdkPage, type SdkSite } from './support/sdk.js';
import { expectMedia } from './support/media.js';

const room = 'beside';
let demo: Demo;
let site: SdkSite;
let browsers: Browser[] = [];
let pages: Page[] = [];

test.describe.configure({ mode: 'serial' });

test.beforeAll(async () => {
  demo = await startDemo();
  site = await serveSdkPage();
  for (const identity of ['alice', 'bob']) {
    const browser = await launch();
    browsers.push(browser);
    const page = await openSdkPage(browser, site);
    const args = [demo.url.replace('http', 'ws'), await roomToken(room, identity)] as const;
    await page.evaluate(([url, token]) => window.bench.join(url, token), args);
    await page.evaluate(() => window.bench.publish());
    pages.push(page);
  }
  await callGoesOn();
});

test.afterAll(async () => {
  await Promise.all(browsers.map((b) => b.close()));
  site?.close();
  await demo?.stop();
});

async function callGoesOn() {
  for (const page of pages) await expectMedia(page, { videos: 1, audio: true });
  for (const page of pages) {
    expect(await page.evaluate(() => window.bench.events.filter((e) => /^(signalR|r)econnect|^disconnected/.test(e)))).toEqual([]);
  }
}

/** The media ports that the answers to the pages named. */
async function mediaPorts(): Promise<number[]> {
  const ports = await Promise.all(
    pages.map((page) =>
      page.evaluate(() => {
        const peers = (window as unknown as { peers: RTCPeerConnection[] }).peers;
        return peers.flatMap((p) => [...(p.remoteDescription?.sdp ?? '').matchAll(/a=candidate:\S+ 1 udp \d+ \S+ (\d+)/g)].map((m) => Number(m[1])));
      }),
    ),
  );
  return [...new Set(ports.flat())];
}

/** A signal connection of our own, to say wrong things on. */
async function signal(identity: string) {
  const wrapped = new WrappedJoinRequest({ joinRequest: new JoinRequest({ clientInfo: { sdk: 1, protocol: 17, version: '2.0.0' } }).toBinary() });
  const request = Buffer.from(wrapped.toBinary()).toString('base64url');
  const token = await roomToken(room, identity);
  const socket = new WebSocket(`${demo.url.replace('http', 'ws')}/rtc/v1?access_token=${token}&join_request=${request}`);
  const answers: SignalResponse[] = [];
  let closed = false;
  socket.on('message', (data: Buffer) => void answers.push(SignalResponse.fromBinary(new Uint8Array(data))));
  socket.on('close', () => (closed = true));
  socket.on('error', () => (closed = true));
  await expect.poll(() => answers.some((a) => a.message.case === 'join')).toBe(true);
  return { socket, answers, closed: () => closed, send: (m: SignalRequest['message']) => socket.send(new SignalRequest({ message: m }).toBinary()) };
}

test('HTTP: malformed JSON, wrong types and foreign tokens are refused in words', async () => {
  const url = `${demo.url}/api/v1/consultations/sessions`;
  const post = (body: string | Buffer, token = demo.api_token) =>
    fetch(url, { method: 'POST', body: body as BodyInit, headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' } });
  for (const body of ['', '{', '[]', 'null', '{"appointmentId":{}}', '{"consultationMode":"TELEPATHY"}', Buffer.from([0xff, 0xfe, 0]), '['.repeat(20_000)]) {
    const answer = await post(body);
    expect(answer.status, String(body).slice(0, 40)).toBeGreaterThanOrEqual(400);
    expect(answer.status, String(body).slice(0, 40)).toBeLessThan(500);
    expect(answer.headers.get('content-type')).toContain('application/problem+json');
    expect((await answer.json()).title).toBeTruthy();
  }
  const foreign = await roomToken(room, 'mallory');
  for (const token of ['', 'x', 'a.b.c', foreign, demo.api_token.slice(0, -4)]) expect((await post('{}', token)).status).toBe(401);
  await callGoesOn();
});

test('JWT: nothing but a good room token opens the room door, and no answer repeats it', async () => {
  const encode = (o: object) => Buffer.from(JSON.stringify(o)).toString('base64url');
  const claims = { iss: demo.api_key, sub: 'mallory', exp: 4e9, video: { room, roomJoin: true } };
  const sign = (head: object, body: object, secret = demo.api_secret) => {
    const text = `${encode(head)}.${encode(body)}`;
    return `${text}.${crypto.createHmac('sha256', secret).update(text).digest('base64url')}`;
  };
  const good = { alg: 'HS256', typ: 'JWT' };
  const bad: Record<string, string> = {
    empty: '',
    words: 'not a token',
    none: `${encode({ alg: 'none' })}.${encode(claims)}.`,
    'another secret': sign(good, claims, 'another secret'),
    expired: sign(good, { ...claims, exp: 1 }),
    'not yet': sign(good, { ...claims, nbf: 4e9 }),
    'no expiry': sign(good, { ...claims, exp: undefined }),
    'no grant': sign(good, { ...claims, video: {} }),
    'api token': demo.api_token,
    cut: sign(good, claims).slice(0, -5),
  };
  for (const [what, token] of Object.entries(bad)) {
    for (const path of ['/rtc/validate', '/rtc/v1/validate', '/rtc/v1']) {
      const answer = await fetch(`${demo.url}${path}?access_token=${encodeURIComponent(token)}`);
      expect(answer.status, `${what} at ${path}`).toBeGreaterThanOrEqual(400);
      expect(answer.status, `${what} at ${path}`).toBeLessThan(500);
      if (token) expect(await answer.text()).not.toContain(token);
    }
  }
  await callGoesOn();
});

test('protobuf: garbage and unknown messages leave the session standing', async () => {
  const door = await signal('garbler');
  door.socket.send(crypto.randomBytes(200));
  door.socket.send(Buffer.from([0x08]));
  door.socket.send(Buffer.from([0xfa, 0x3f, 0x03, 1, 2, 3])); // a field number of tomorrow
  door.socket.send('{"not":"a signal request"');
  door.send({ case: 'pingReq', value: { timestamp: 7n, rtt: 0n } as never });
  await expect.poll(() => door.answers.some((a) => a.message.case === 'pongResp')).toBe(true);
  expect(door.closed()).toBe(false);
  door.socket.close();
  await callGoesOn();
});

test('protobuf: a message above the limit and a bad join request end that socket alone', async () => {
  const door = await signal('giant');
  door.socket.send(Buffer.alloc(3 * 1024 * 1024));
  await expect.poll(() => door.closed()).toBe(true);
  const token = await roomToken(room, 'mallory');
  for (const request of ['', '%', 'AAAA', crypto.randomBytes(300).toString('base64url')]) {
    const answer = await fetch(`${demo.url}/rtc/v1?access_token=${token}&join_request=${encodeURIComponent(request)}`);
    expect(answer.status).toBeGreaterThanOrEqual(400);
    expect(answer.status).toBeLessThan(500);
  }
  await callGoesOn();
});

test('SDP: nonsense is answered with an end or ignored, never with a broken room', async () => {
  const texts = ['', 'v=0', 'm=audio', 'v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:0\r\n', 'a'.repeat(400_000), `v=0\r\n${'m=audio 9 UDP/TLS/RTP/SAVPF 0\r\n'.repeat(5000)}`, '\0\uffff\r\n'.repeat(100)];
  for (const [i, sdp] of texts.entries()) {
    const door = await signal(`sdp-${i}`);
    door.send({ case: 'addTrack', value: new AddTrackRequest({ cid: 'x', type: TrackType.VIDEO }) });
    door.send({ case: 'offer', value: { type: 'offer', sdp, id: 1 } as never });
    const ended = () => door.closed() || door.answers.some((a) => ['leave', 'answer', 'requestResponse'].includes(a.message.case ?? ''));
    await expect.poll(ended, { message: `offer ${i} is answered` }).toBe(true);
    door.socket.close();
  }
  await callGoesOn();
});

test('STUN, DTLS, RTP and random datagrams at the media port are counted and dropped', async () => {
  const before = await metric(demo, 'bedside_dropped_packets_total');
  const socket = dgram.createSocket('udp4');
  const stun = (body: Buffer) => {
    const head = Buffer.alloc(20);
    head.writeUInt16BE(1, 0);
    head.writeUInt16BE(body.length, 2);
    head.writeUInt32BE(0x2112a442, 4);
    crypto.randomFillSync(head, 8);
    return Buffer.concat([head, body]);
  };
  const user = Buffer.concat([Buffer.from([0, 6, 0, 8]), Buffer.from('abcd:efg')]);
  const useCandidate = Buffer.from([0, 0x25, 0, 0]);
  const made = [
    () => crypto.randomBytes(1 + crypto.randomInt(1400)),
    () => stun(Buffer.alloc(0)),
    () => stun(Buffer.concat([user, useCandidate])),
    () => stun(user).subarray(0, 21 + crypto.randomInt(8)),
    () => stun(Buffer.from([0, 6, 0xff, 0xff])),
    () => Buffer.concat([Buffer.from([22, 0xfe, 0xfd]), crypto.randomBytes(60)]),
    () => Buffer.concat([Buffer.from([0x80, 96]), crypto.randomBytes(100)]),
    () => Buffer.concat([Buffer.from([0x9f, 0xff]), crypto.randomBytes(3)]),
    () => Buffer.concat([Buffer.from([0x80, 200]), crypto.randomBytes(50)]),
    () => Buffer.alloc(0),
  ];
  const ports = await mediaPorts();
  expect(ports.length).toBeGreaterThan(0);
  for (let i = 0; i < 2000; i++) {
    const datagram = made[i % made.length]!();
    for (const port of ports) socket.send(datagram, port, '127.0.0.1');
    if (i % 100 === 99) await new Promise((resolve) => setTimeout(resolve, 10));
  }
  await expect.poll(async () => (await metric(demo, 'bedside_dropped_packets_total')) - before).toBeGreaterThan(1000);
  socket.close();
  await callGoesOn();
});
