// End-to-end encryption of livekit-client: whoever has the key sees and hears, and nobody else does.
// The server passes on what it cannot read.
import { test, expect, type Browser, type Page } from '@playwright/test';
import type { From } from './sdk-page/page.js';
import { launch } from './support/chromium.js';
import { startDemo, roomToken, type Demo } from './support/demo.js';
import { openSdkPage, serveSdkPage, type SdkSite } from './support/sdk.js';

let demo: Demo;
let site: SdkSite;
const browsers: Browser[] = [];
const people: Record<string, Page> = {};

test.describe.configure({ mode: 'serial', timeout: 300_000 });

// Several cameras share few cores here.
const layered = { videoCaptureDefaults: { resolution: { width: 640, height: 360 } } };
const small = {
  videoCaptureDefaults: { resolution: { width: 320, height: 180 } },
  publishDefaults: { simulcast: false },
};

/** Somebody comes with a key, and shows and says something. */
async function enter(identity: string, key: string, options: object): Promise<void> {
  const browser = await launch();
  browsers.push(browser);
  const page = (people[identity] = await openSdkPage(browser, site));
  const args = [demo.url.replace('http', 'ws'), await roomToken('sealed', identity), options, key] as const;
  await page.evaluate(([u, t, o, k]) => window.bench.join(u, t, o, k), args);
  await page.evaluate(() => window.bench.publish());
}

const nothing: From = { frames: 0, energy: 0, packets: { video: 0, audio: 0 }, codecs: [] };
const received = async (who: string, from: string): Promise<From> =>
  (await people[who]!.evaluate(() => window.bench.received()))[from] ?? nothing;

/** `who` decodes pictures and hears the beeps of `from`, from now on. */
async function opens(who: string, from: string): Promise<void> {
  const before = await received(who, from);
  const gained = async () => {
    const now = await received(who, from);
    return now.frames >= before.frames + 10 && now.energy > before.energy + 1e-5;
  };
  await expect.poll(gained, { timeout: 60_000, message: `${who} opens what ${from} sends` }).toBe(true);
}

/** Packets of `from` keep coming to `who`, who makes neither picture nor sound of them. */
async function opensNone(who: string, from: string): Promise<void> {
  const before = await received(who, from);
  const come = async () => {
    const { packets } = await received(who, from);
    return packets.video >= before.packets.video + 20 && packets.audio >= before.packets.audio + 100;
  };
  await expect.poll(come, { timeout: 60_000, message: `${who} gets what ${from} sends` }).toBe(true);
  const after = await received(who, from);
  expect(after.frames, `pictures of ${from} at ${who}`).toBe(before.frames);
  expect(after.energy - before.energy, `sound of ${from} at ${who}`).toBeLessThan(1e-7);
}

const write = (who: string, text: string) =>
  people[who]!.evaluate((t) => window.bench.room!.localParticipant.publishData(new TextEncoder().encode(t), { reliable: true }), text);
const read = (who: string) => people[who]!.evaluate(() => window.bench.data.map((d) => `${d.from}: ${d.text}`));

test.beforeAll(async () => {
  demo = await startDemo();
  site = await serveSdkPage();
});

test.afterAll(async () => {
  await Promise.all(browsers.map((b) => b.close()));
  site?.close();
  await demo?.stop();
});

test.afterEach(async ({}, info) => {
  if (info.status === info.expectedStatus) return;
  console.log(demo.log.slice(-40).join('\n'));
  for (const [who, page] of Object.entries(people)) {
    console.log(who, JSON.stringify(await page.evaluate(() => window.bench.received()).catch(String)));
  }
});

test('with one key, pictures, sounds and messages are opened on the other side', async () => {
  await enter('alice', 'a key', layered);
  await enter('bob', 'a key', small);
  await opens('bob', 'alice');
  await opens('alice', 'bob');
  await write('alice', 'for bob');
  await expect.poll(() => read('bob')).toEqual(['alice: for bob']);
  const told = await people.bob!.evaluate(() => {
    const tracks = [...window.bench.room!.remoteParticipants.get('alice')!.trackPublications.values()];
    return tracks.map((track) => track.isEncrypted);
  });
  expect(told).toEqual([true, true]);
  expect((await received('bob', 'alice')).codecs.sort(), 'no RED is made of what cannot be read').toEqual(['audio/opus', 'video/VP8']);
});

test('with another key nothing is opened, either way, and the others go on', async () => {
  await enter('eve', 'another key', small);
  for (const [who, from] of [['eve', 'alice'], ['alice', 'eve'], ['eve', 'bob']] as const) await opensNone(who, from);
  await opens('bob', 'alice');
  await opens('alice', 'bob');
  await write('alice', 'still here');
  await expect.poll(() => read('bob')).toEqual(['alice: for bob', 'alice: still here']);
  expect(await read('eve'), 'messages are encrypted, too').toEqual([]);
  // What the room itself says is for everybody.
  const muted = () => people.eve!.evaluate(() => window.bench.room!.remoteParticipants.get('alice')!.isMicrophoneEnabled);
  await people.alice!.evaluate(() => window.bench.room!.localParticipant.setMicrophoneEnabled(false));
  await expect.poll(muted).toBe(false);
  await people.alice!.evaluate(() => window.bench.room!.localParticipant.setMicrophoneEnabled(true));
  await expect.poll(muted).toBe(true);
});

test('a second pair with a key of its own opens its own', async () => {
  await enter('dan', 'another key', small);
  await opens('dan', 'eve');
  await opens('eve', 'dan');
  await opensNone('dan', 'alice');
  await opens('bob', 'alice');
  await write('dan', 'for eve');
  await expect.poll(() => read('eve')).toEqual(['dan: for eve']);
  expect(await read('bob')).not.toContain('dan: for eve');
});

test('who is given the key in mid-call opens all of it', async () => {
  await people.eve!.evaluate(() => window.bench.keys!.setKey('a key'));
  await opens('eve', 'alice');
  await opens('alice', 'eve');
});
