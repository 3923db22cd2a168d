// Clients with two connections in one room with a browser that has one: the Go SDK, Python's in that
// mode, and livekit-client in that mode. Everything is looked at from both sides.
import { spawn, type ChildProcess } from 'node:child_process';
import { createHmac } from 'node:crypto';
import path from 'node:path';
import readline from 'node:readline';
import { test, expect, type Browser, type Page } from '@playwright/test';
import { launch } from '../support/chromium.js';
import { startDemo, type Demo } from '../support/demo.js';
import { expectMedia } from '../support/media.js';
import { openSdkPage, serveSdkPage, type SdkSite } from '../support/sdk.js';

interface Report {
  participants: Record<string, string>;
  metadata: Record<string, string>;
  attributes: Record<string, Record<string, string>>;
  frames: Record<string, number>;
  keyframes: Record<string, number>;
  sounds: Record<string, number>;
  codecs: Record<string, string>;
  data: { text: string; from: string; topic: string }[];
  events: string[];
  published: number;
}

/** The Go SDK's participant, one command at a time. */
class Gopher {
  readonly said: string[] = [];
  private readonly answers: AsyncIterator<string>;

  private constructor(private readonly process: ChildProcess) {
    this.answers = readline.createInterface({ input: process.stdout! })[Symbol.asyncIterator]();
    readline.createInterface({ input: process.stderr! }).on('line', (line) => this.said.push(line));
  }

  static async join(url: string, token: string): Promise<Gopher> {
    const program = process.env.E2E_GO ?? 'participant';
    const media = path.resolve(import.meta.dirname, '../../../client/media');
    const gopher = new Gopher(spawn(program, [url, token, media], { stdio: ['pipe', 'pipe', 'pipe'] }));
    expect((await gopher.answer()).joined).toMatch(/^RM_/);
    return gopher;
  }

  private async answer(): Promise<{ ok?: boolean; answer?: Report; error?: string; joined?: string }> {
    const line = await this.answers.next();
    if (line.done) throw new Error(`the Go program ended:\n${this.said.slice(-20).join('\n')}`);
    return JSON.parse(line.value);
  }

  async do(what: string, more: object = {}): Promise<void> {
    this.process.stdin!.write(`${JSON.stringify({ do: what, ...more })}\n`);
    expect(await this.answer()).toEqual({ ok: true, answer: null });
  }

  async report(): Promise<Report> {
    this.process.stdin!.write('{"do": "report"}\n');
    return (await this.answer()).answer!;
  }

  /** How often something happened. */
  async events(name: string): Promise<number> {
    return (await this.report()).events.filter((event) => event === name).length;
  }

  stop(): void {
    this.process.kill();
  }
}

let demo: Demo;
let site: SdkSite;
let browser: Browser;
let page: Page;
let gopher: Gopher;

test.describe.configure({ mode: 'serial' });

test.beforeAll(async () => {
  demo = await startDemo();
  site = await serveSdkPage();
  browser = await launch();
  page = await openSdkPage(browser, site);
  await page.evaluate(([u, t]) => window.bench.join(u, t), [socket(), token('browser')] as const);
  await page.evaluate(() => window.bench.publish());
  gopher = await Gopher.join(socket(), token('gopher'));
  await gopher.do('publish');
});

test.afterAll(async () => {
  gopher?.stop();
  await browser?.close();
  site?.close();
  await demo?.stop();
});

test.afterEach(({}, info) => {
  const lines = [...(gopher?.said ?? []).slice(-20), ...demo.log.slice(-20)];
  if (info.status !== info.expectedStatus) console.log(lines.join('\n'));
});

/** A token that lets its bearer change what others see of it. */
function token(identity: string): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const video = { roomJoin: true, room: 'two', canUpdateOwnMetadata: true };
  const exp = Math.floor(Date.now() / 1000) + 600;
  const text = `${part({ alg: 'HS256' })}.${part({ iss: demo.api_key, sub: identity, exp, video })}`;
  return `${text}.${createHmac('sha256', demo.api_secret).update(text).digest('base64url')}`;
}

const socket = () => demo.url.replace('http', 'ws');

/** Pictures and sounds of the browser arrive at the Go program. */
async function gopherReceives(): Promise<void> {
  const before = await gopher.report();
  const gained = async () => {
    const now = await gopher.report();
    const more = (of: keyof Pick<Report, 'frames' | 'sounds'>) => (now[of].browser ?? 0) - (before[of].browser ?? 0);
    return more('frames') >= 20 && more('sounds') >= 50;
  };
  await expect.poll(gained, { timeout: 30_000 }).toBe(true);
}

/** What the page knows of the Go program. */
const seen = <R>(read: string) => page.evaluate(`(() => {
  const them = window.bench.room.getParticipantByIdentity('gopher');
  return ${read};
})()`) as Promise<R>;

test('pictures and sounds go both ways', async () => {
  await expectMedia(page, { videos: 1, audio: true });
  await gopherReceives();
  const { codecs, keyframes } = await gopher.report();
  expect(codecs).toEqual({ 'browser video': 'video/VP8', 'browser audio': 'audio/opus' });
  expect(keyframes.browser).toBeGreaterThan(0);
});

test('messages go both ways, reliable ones in order', async () => {
  const texts = Array.from({ length: 30 }, (_, n) => String(n));
  for (const text of texts) await gopher.do('data', { text, topic: 'r', reliable: true });
  const got = () => page.evaluate(() => window.bench.data.filter((d) => d.topic === 'r' && d.reliable && d.from === 'gopher').map((d) => d.text));
  await expect.poll(got).toEqual(texts);
  await gopher.do('data', { text: 'quick', topic: 'l', reliable: false });
  await expect.poll(() => page.evaluate(() => window.bench.data.filter((d) => d.topic === 'l' && !d.reliable).length)).toBe(1);
  await page.evaluate(async (all) => {
    const me = window.bench.room!.localParticipant;
    for (const text of all) await me.publishData(new TextEncoder().encode(text), { reliable: true, topic: 'b' });
  }, texts);
  const heard = async () => (await gopher.report()).data.filter((d) => d.topic === 'b' && d.from === 'browser').map((d) => d.text);
  await expect.poll(heard).toEqual(texts);
});

test('a mute is seen on the other side', async () => {
  const muted = () => seen<boolean>(`[...them.audioTrackPublications.values()][0].isMuted`);
  await gopher.do('mute', { muted: true });
  await expect.poll(muted).toBe(true);
  await gopher.do('mute', { muted: false });
  await expect.poll(muted).toBe(false);
  await expectMedia(page, { videos: 1, audio: true });
  await page.evaluate(() => window.bench.room!.localParticipant.setMicrophoneEnabled(false));
  await expect.poll(() => gopher.events('muted browser')).toBe(1);
  await page.evaluate(() => window.bench.room!.localParticipant.setMicrophoneEnabled(true));
  await expect.poll(() => gopher.events('unmuted browser')).toBe(1);
  await gopherReceives();
});

test('metadata and attributes are seen on the other side', async () => {
  await gopher.do('metadata', { text: 'from Go' });
  await gopher.do('attributes', { attributes: { mood: 'fine' } });
  await gopher.do('name', { text: 'The Gopher' });
  await expect.poll(() => seen<unknown>('[them.metadata, them.attributes.mood, them.name]')).toEqual(['from Go', 'fine', 'The Gopher']);
  await page.evaluate(() => window.bench.room!.localParticipant.setMetadata('from a page'));
  await page.evaluate(() => window.bench.room!.localParticipant.setAttributes({ light: 'on' }));
  await expect.poll(async () => (await gopher.report()).metadata.browser).toBe('from a page');
  await expect.poll(async () => (await gopher.report()).attributes.browser).toEqual({ light: 'on' });
});

test('tracks come and go', async () => {
  for (const round of [1, 2]) {
    await gopher.do('unpublish');
    await expect.poll(() => seen<number>('them.trackPublications.size')).toBe(0);
    await gopher.do('publish');
    await expectMedia(page, { videos: 1, audio: true });
    await page.evaluate(async () => {
      const me = window.bench.room!.localParticipant;
      await Promise.all([...me.trackPublications.values()].map((p) => me.unpublishTrack(p.track!)));
    });
    await expect.poll(() => gopher.events('unsubscribed browser')).toBe(2 * round);
    await page.evaluate(() => window.bench.publish());
    await gopherReceives();
  }
});

test('a lost signal connection is taken up again, and media never stops', async () => {
  const sid = await seen<string>('them.sid');
  await gopher.do('resume');
  await expect.poll(() => gopher.events('reconnected'), { timeout: 30_000 }).toBe(1);
  await expectMedia(page, { videos: 1, audio: true });
  await gopherReceives();
  expect(await seen<string>('them.sid'), 'the same participant').toBe(sid);
  await gopher.do('data', { text: 'after', topic: 'resumed', reliable: true });
  await expect.poll(() => page.evaluate(() => window.bench.data.filter((d) => d.topic === 'resumed').length)).toBe(1);
});

test('a client that begins anew is there again with all it published', async () => {
  const sid = await seen<string>('them.sid');
  await gopher.do('restart');
  await expect.poll(() => gopher.events('reconnected'), { timeout: 60_000 }).toBe(2);
  await expect.poll(() => seen<string | undefined>('them?.sid')).not.toBe(sid);
  await expectMedia(page, { videos: 1, audio: true });
  await gopherReceives();
});

test('livekit-client with two connections meets all of them', async () => {
  const other = await openSdkPage(browser, site);
  const options = { singlePeerConnection: false };
  await other.evaluate(([u, t, o]) => window.bench.join(u, t, o), [socket(), token('double'), options] as const);
  await other.evaluate(() => window.bench.publish());
  await expectMedia(other, { videos: 2, audio: true });
  await expectMedia(page, { videos: 2, audio: true });
  expect(await other.evaluate(() => (window as unknown as { peers: RTCPeerConnection[] }).peers.length)).toBe(2);
  await expect.poll(async () => (await gopher.report()).frames.double ?? 0, { timeout: 30_000 }).toBeGreaterThan(20);
  for (const scenario of ['signal-reconnect', 'full-reconnect'] as const) {
    const name = scenario === 'signal-reconnect' ? 'signalReconnecting' : 'reconnecting';
    await other.evaluate((s) => window.bench.room!.simulateScenario(s), scenario);
    await expect.poll(() => other.evaluate((n) => window.bench.events.includes(n), name), { timeout: 30_000 }).toBe(true);
    await expect.poll(() => other.evaluate(() => window.bench.room!.state), { timeout: 30_000 }).toBe('connected');
    await expectMedia(other, { videos: 2, audio: true });
    await expectMedia(page, { videos: 2, audio: true });
  }
  await other.evaluate(() => window.bench.room!.disconnect());
  await expect.poll(() => gopher.events('left double')).toBeGreaterThan(0);
});

test('who leaves is gone at once', async () => {
  gopher.stop();
  await expect.poll(() => seen<boolean>('them === undefined'), { timeout: 30_000 }).toBe(true);
});
