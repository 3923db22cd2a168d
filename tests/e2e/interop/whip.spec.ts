// Clients that come over HTTP: FFmpeg's own WHIP muxer, aiortc, and a page with a bare RTCPeerConnection.
// What one sends is decoded by another.
import { spawn, type ChildProcess } from 'node:child_process';
import { createHmac } from 'node:crypto';
import path from 'node:path';
import readline from 'node:readline';
import { test, expect, type Browser, type Page } from '@playwright/test';
import { launch } from '../support/chromium.js';
import { startDemo, metric, type Demo } from '../support/demo.js';
import { expectMedia } from '../support/media.js';
import { openSdkPage, serveSdkPage, type SdkSite } from '../support/sdk.js';

const folder = path.resolve(import.meta.dirname, '../../interop/python');
const interpreter = process.env.E2E_PYTHON ?? 'python3';

/** A Python program that tells what it does, and leaves when its input ends. */
class Program {
  told: Record<string, unknown> = {};
  readonly said: string[] = [];
  private readonly gone: Promise<unknown>;

  constructor(script: string, args: string[]) {
    this.process = spawn(interpreter, [path.join(folder, script), ...args], { stdio: 'pipe' });
    this.gone = new Promise((resolve) => this.process.once('exit', resolve));
    readline.createInterface({ input: this.process.stdout! }).on('line', (line) => Object.assign(this.told, JSON.parse(line)));
    readline.createInterface({ input: this.process.stderr! }).on('line', (line) => this.said.push(line));
    programs.push(this);
  }

  readonly process: ChildProcess;

  async leave(): Promise<void> {
    this.process.stdin!.end();
    await this.gone;
  }

  /** Waits until it has told a number of at least so much. */
  async reaches(name: string, least: number): Promise<void> {
    await expect.poll(() => Number(this.told[name] ?? -1), { timeout: 60_000, message: this.said.join('\n') }).toBeGreaterThanOrEqual(least);
  }

  /** More is decoded of pictures and sound, and the sound is loud. */
  async decodes(): Promise<void> {
    const { frames = 0, blocks = 0 } = this.told as { frames?: number; blocks?: number };
    await this.reaches('frames', frames + 20);
    await this.reaches('blocks', blocks + 50);
    await this.reaches('peak', 1_000);
  }
}

let demo: Demo;
let site: SdkSite;
let browser: Browser;
let page: Page;
let programs: Program[] = [];

test.describe.configure({ mode: 'serial' });

test.beforeAll(async () => {
  demo = await startDemo();
  site = await serveSdkPage();
  browser = await launch();
  page = await openSdkPage(browser, site);
  await page.evaluate(([u, t]) => window.bench.join(u, t), [demo.url.replace('http', 'ws'), token('browser')] as const);
});

test.afterEach(async ({}, info) => {
  const lines = [...programs.flatMap((program) => program.said.slice(-20)), ...demo.log.slice(-20)];
  if (info.status !== info.expectedStatus) console.log(lines.join('\n'));
  for (const program of programs) program.process.kill();
  programs = [];
});

test.afterAll(async () => {
  await browser?.close();
  site?.close();
  await demo?.stop();
});

function token(identity: string, grant: object = {}): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const video = { roomJoin: true, room: 'studio', ...grant };
  const exp = Math.floor(Date.now() / 1000) + 600;
  const text = `${part({ alg: 'HS256' })}.${part({ iss: demo.api_key, sub: identity, exp, video })}`;
  return `${text}.${createHmac('sha256', demo.api_secret).update(text).digest('base64url')}`;
}

const whip = () => `${demo.url}/whip/studio`;
const whep = (identity = '') => `${demo.url}/whep/studio${identity && `/${identity}`}`;

/** The page with livekit-client decodes pictures and sound of somebody. */
async function pageDecodes(identity: string): Promise<void> {
  const of = async () => (await page.evaluate(() => window.bench.received()))[identity];
  const before = (await of()) ?? { frames: 0, energy: 0 };
  const more = async () => {
    const now = await of();
    return !!now && now.frames >= before.frames + 20 && now.energy > before.energy + 1e-5;
  };
  await expect.poll(more, { timeout: 60_000 }).toBe(true);
}

/** What the page with livekit-client knows of somebody. */
const seen = (identity: string) =>
  page.evaluate((identity) => {
    const them = window.bench.room!.getParticipantByIdentity(identity);
    return them && [...them.trackPublications.values()].map((track) => track.source).sort();
  }, identity);

test("what FFmpeg's muxer sends is decoded by a page and by aiortc", async () => {
  test.setTimeout(180_000);
  const ffmpeg = new Program('whip.py', [whip(), token('ffmpeg')]);
  const watcher = new Program('rtc.py', ['watch', whep('ffmpeg'), token('watcher', { canPublish: false })]);
  await ffmpeg.reaches('pictures', 15);
  await Promise.all([pageDecodes('ffmpeg'), watcher.decodes()]);
  expect(await seen('ffmpeg')).toEqual(['camera', 'microphone']);
  expect(watcher.told.size).toEqual([320, 240]);
  await watcher.leave();
  expect(watcher.told.deleted).toBe(200);
  await ffmpeg.leave();
  expect(ffmpeg.told.closed).toBe(true);
  await expect.poll(() => seen('ffmpeg')).toBe(undefined);
});

test('what aiortc sends is decoded by a page that has nothing but RTCPeerConnection', async () => {
  test.setTimeout(180_000);
  const publisher = new Program('rtc.py', ['publish', whip(), token('aiortc')]);
  await pageDecodes('aiortc');
  const bare = await openSdkPage(browser, site);
  await bare.evaluate(watch, [whep('aiortc'), token('bare', { canPublish: false })] as const);
  await expectMedia(bare, { videos: 1, audio: true }, 60_000);
  await publisher.leave();
  expect(publisher.told.deleted).toBe(200);
  await bare.close();
});

test('who watches nobody in particular follows the publishers, and a restart of ICE goes by unseen', async () => {
  test.setTimeout(180_000);
  const bare = await openSdkPage(browser, site);
  const location = await bare.evaluate(watch, [whep(), token('follower')] as const);
  const first = new Program('rtc.py', ['publish', whip(), token('first')]);
  await expectMedia(bare, { videos: 1, audio: true }, 60_000);
  await pageDecodes('first');
  const second = new Program('rtc.py', ['publish', whip(), token('second')]);
  await pageDecodes('second');
  await first.leave();
  await expectMedia(bare, { videos: 1, audio: true }, 60_000);
  const streams = () => bare.evaluate(async () => {
    let count = 0;
    const [peer] = (window as unknown as { peers: RTCPeerConnection[] }).peers;
    (await peer!.getStats()).forEach((s) => void (count += s.type === 'inbound-rtp' ? 1 : 0));
    return count;
  });
  expect(await streams(), 'both came on the same streams').toBe(2);
  await bare.evaluate(restart, [location, token('follower')] as const);
  await expectMedia(bare, { videos: 1, audio: true }, 60_000);
  await second.leave();
  await bare.close();
});

test('a page publishes by WHIP in layers, and restarts ICE', async () => {
  test.setTimeout(180_000);
  const bare = await openSdkPage(browser, site);
  const location = await bare.evaluate(publish, [whip(), token('layers')] as const);
  await pageDecodes('layers');
  const simulcast = () => page.evaluate(() => {
    const them = window.bench.room!.getParticipantByIdentity('layers')!;
    return [...them.trackPublications.values()].map((track) => [track.kind, track.simulcasted]);
  });
  expect(await simulcast()).toContainEqual(['video', true]);
  await bare.evaluate(restart, [location, token('layers')] as const);
  await pageDecodes('layers');
  const gone = await fetch(location, { method: 'DELETE', headers: { authorization: `Bearer ${token('layers')}` } });
  expect(gone.status).toBe(200);
  await expect.poll(() => seen('layers')).toBe(undefined);
  await bare.close();
});

test('without the right nothing is made', async () => {
  const joins = await metric(demo, 'bedside_joins_total');
  const rooms = await metric(demo, 'bedside_rooms');
  const cases = [
    ['', 401],
    [token('eve', { roomJoin: false, room: 'studio' }), 401],
    [token('eve', { canPublish: false, room: 'fresh' }), 403],
    [token('eve', { canPublishSources: ['microphone'], room: 'fresh' }), 403],
  ] as const;
  for (const [bearer, status] of cases) {
    const room = bearer && JSON.parse(Buffer.from(bearer.split('.')[1]!, 'base64url').toString()).video.room;
    const publisher = new Program('rtc.py', ['publish', `${demo.url}/whip/${room || 'fresh'}`, bearer]);
    await publisher.reaches('refused', status);
    expect(publisher.told.refused).toBe(status);
  }
  expect(await metric(demo, 'bedside_joins_total')).toBe(joins);
  expect(await metric(demo, 'bedside_rooms')).toBe(rooms);
});

/** In a page: watches by WHEP, and returns the address of the session. */
async function watch([url, bearer]: readonly [string, string]): Promise<string> {
  const peer = new RTCPeerConnection();
  for (const kind of ['audio', 'video']) peer.addTransceiver(kind, { direction: 'recvonly' });
  peer.ontrack = ({ track }) => {
    const element = document.createElement(track.kind as 'audio' | 'video');
    element.autoplay = true;
    element.srcObject = new MediaStream([track]);
    document.body.append(element);
  };
  await peer.setLocalDescription();
  const headers = { authorization: `Bearer ${bearer}`, 'content-type': 'application/sdp' };
  const answer = await fetch(url, { method: 'POST', headers, body: peer.localDescription!.sdp });
  if (answer.status !== 201) throw new Error(`${answer.status} ${await answer.text()}`);
  await peer.setRemoteDescription({ type: 'answer', sdp: await answer.text() });
  if (!answer.headers.get('etag')) throw new Error('no ETag is to be read');
  return new URL(answer.headers.get('location')!, url).href;
}

/** In a page: publishes three layers and a voice by WHIP. */
async function publish([url, bearer]: readonly [string, string]): Promise<string> {
  const peer = new RTCPeerConnection();
  const media = await navigator.mediaDevices.getUserMedia({ audio: true, video: { width: 640, height: 360 } });
  peer.addTransceiver(media.getAudioTracks()[0]!, { direction: 'sendonly' });
  const rids = [['q', 4], ['h', 2], ['f', 1]] as const;
  const sendEncodings = rids.map(([rid, scaleResolutionDownBy]) => ({ rid, scaleResolutionDownBy }));
  peer.addTransceiver(media.getVideoTracks()[0]!, { direction: 'sendonly', sendEncodings });
  await peer.setLocalDescription();
  const headers = { authorization: `Bearer ${bearer}`, 'content-type': 'application/sdp' };
  const answer = await fetch(url, { method: 'POST', headers, body: peer.localDescription!.sdp });
  if (answer.status !== 201) throw new Error(`${answer.status} ${await answer.text()}`);
  await peer.setRemoteDescription({ type: 'answer', sdp: await answer.text() });
  return new URL(answer.headers.get('location')!, url).href;
}

/** In a page: restarts ICE of its only connection by PATCH, and waits until media takes the new one. */
async function restart([location, bearer]: readonly [string, string]): Promise<void> {
  const { peers } = window as unknown as { peers: RTCPeerConnection[] };
  const peer = peers.find((p) => p.connectionState === 'connected')!;
  const before = peer.remoteDescription!.sdp;
  const value = (sdp: string, name: string) => new RegExp(`^a=${name}:(.*?)\\r?$`, 'm').exec(sdp)![1]!;
  await peer.setLocalDescription(await peer.createOffer({ iceRestart: true }));
  const offer = peer.localDescription!.sdp;
  const body = ['ice-ufrag', 'ice-pwd'].map((name) => `a=${name}:${value(offer, name)}\r\n`).join('');
  const headers = { authorization: `Bearer ${bearer}`, 'content-type': 'application/trickle-ice-sdpfrag', 'if-match': '*' };
  const answer = await fetch(location, { method: 'PATCH', headers, body });
  if (answer.status !== 200) throw new Error(`${answer.status} ${await answer.text()}`);
  const fragment = await answer.text();
  let sdp = before;
  for (const name of ['ice-ufrag', 'ice-pwd']) sdp = sdp.replaceAll(`a=${name}:${value(before, name)}`, `a=${name}:${value(fragment, name)}`);
  await peer.setRemoteDescription({ type: 'answer', sdp });
  const chosen = async () => {
    const stats = [...((await peer.getStats()) as unknown as Map<string, Record<string, unknown>>).values()];
    const transport = stats.find((s) => s.type === 'transport');
    return transport?.iceLocalUsernameFragment === value(offer, 'ice-ufrag') && transport.iceState === 'connected';
  };
  while (!(await chosen())) await new Promise((resolve) => setTimeout(resolve, 100));
}
