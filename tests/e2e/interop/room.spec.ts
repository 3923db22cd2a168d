// One room for everybody: livekit-client and Python's SDK with one connection, the Go SDK and Python's
// with two, and livekit-client in that mode. What one does is looked at from every other side.
import { createHmac } from 'node:crypto';
import { test, expect, type Browser } from '@playwright/test';
import { launch } from '../support/chromium.js';
import { startDemo, type Demo } from '../support/demo.js';
import { openSdkPage, serveSdkPage, type SdkSite } from '../support/sdk.js';
import { expectBlind, expectKnown, expectMeeting, InPage, InProgram, type Person } from './people.js';

const room = 'everybody';
let demo: Demo;
let site: SdkSite;
let browser: Browser;
let page: InPage;
let gopher: InProgram;
let python: InProgram;
let snake: InProgram;
/** All who are in the room. */
let people: Person[];

test.describe.configure({ mode: 'serial', timeout: 300_000 });

function sign(claims: object): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const exp = Math.floor(Date.now() / 1000) + 600;
  const text = `${part({ alg: 'HS256' })}.${part({ iss: demo.api_key, exp, ...claims })}`;
  return `${text}.${createHmac('sha256', demo.api_secret).update(text).digest('base64url')}`;
}

/** A token that lets its bearer change what others see of it. */
const token = (identity: string) => sign({ sub: identity, video: { roomJoin: true, room, canUpdateOwnMetadata: true } });

/** What somebody who administers the room does to one of its people. */
async function administer(method: string, identity: string, more: object = {}): Promise<{ tracks?: { sid: string; type: string }[] }> {
  const answer = await fetch(`${demo.url}/twirp/livekit.RoomService/${method}`, {
    method: 'POST',
    headers: { authorization: `Bearer ${sign({ sub: 'administrator', video: { roomAdmin: true, room } })}`, 'content-type': 'application/json' },
    body: JSON.stringify({ room, identity, ...more }),
  });
  const text = await answer.text();
  expect(answer.status, `${method}: ${text}`).toBe(200);
  return JSON.parse(text);
}

const may = { can_publish: true, can_publish_data: true, can_subscribe: true, can_update_metadata: true };

const socket = () => demo.url.replace('http', 'ws');

async function joinPage(identity: string, more = {}): Promise<InPage> {
  const opened = await openSdkPage(browser, site);
  const options = { videoCaptureDefaults: { resolution: { width: 640, height: 360 } }, ...more };
  await opened.evaluate(([u, t, o]) => window.bench.join(u, t, o), [socket(), token(identity), options] as const);
  return new InPage(identity, opened);
}

/** What one of them counted of something. */
const events = async (person: Person, name: string) => (await person.report()).events.filter((event) => event === name).length;

test.beforeAll(async () => {
  demo = await startDemo();
  site = await serveSdkPage();
  browser = await launch();
  [page, gopher, python, snake] = await Promise.all([
    joinPage('browser'),
    InProgram.go('gopher', socket(), token('gopher')),
    InProgram.python('python', socket(), token('python'), 'one'),
    InProgram.python('snake', socket(), token('snake'), 'two'),
  ]);
  people = [page, gopher, python, snake];
});

test.afterAll(async () => {
  for (const person of [gopher, python, snake]) person?.program.stop();
  await browser?.close();
  site?.close();
  await demo?.stop();
});

test.afterEach(({}, info) => {
  if (info.status === info.expectedStatus) return;
  for (const person of [gopher, python, snake]) console.log((person?.program.said ?? []).slice(-20).join('\n'));
  console.log(demo.log.slice(-30).join('\n'));
});

test('everybody sees and hears everybody', async () => {
  await Promise.all(people.map((person) => person.do('publish')));
  await expectMeeting(people);
});

test('messages of everybody reach everybody, in order', async () => {
  const texts = Array.from({ length: 20 }, (_, n) => String(n));
  await Promise.all(
    people.map(async (person) => {
      for (const text of texts) await person.do('data', { text, topic: person.identity });
    }),
  );
  for (const person of people) {
    for (const from of people) {
      const got = async () => (await person.report()).data.filter((d) => d.topic === from.identity).map((d) => `${d.from} ${d.text}`);
      const wanted = person === from ? [] : texts.map((text) => `${from.identity} ${text}`);
      await expect.poll(got, { message: `${from.identity} at ${person.identity}` }).toEqual(wanted);
    }
  }
});

test('names, metadata and attributes of everybody are seen by everybody', async () => {
  for (const person of people) {
    await person.do('name', { text: `I am ${person.identity}` });
    await person.do('metadata', { text: `about ${person.identity}` });
    await person.do('attributes', { attributes: { of: person.identity } });
  }
  for (const person of people) {
    const wanted = [`I am ${person.identity}`, `about ${person.identity}`, { of: person.identity }];
    await expectKnown(people, person, (them) => [them?.name, them?.metadata, them?.attributes], wanted);
  }
});

test('a mute of anybody is seen by everybody', async () => {
  for (const muted of [true, false]) {
    await Promise.all(people.map((person) => person.do('mute', { muted })));
    for (const person of people) await expectKnown(people, person, (them) => them?.muted, muted);
  }
  await expectMeeting(people);
});

test('tracks of anybody come and go', async () => {
  for (const person of people) {
    await person.do('unpublish');
    await expectKnown(people, person, (them) => them?.tracks, 0);
    await person.do('publish');
    await expectKnown(people, person, (them) => them?.tracks, 2);
  }
  await expectMeeting(people);
});

for (const who of ['browser', 'gopher', 'python', 'snake']) {
  test(`${who} loses its signal connection and is the same to everybody after it`, async () => {
    const [it, others] = [people.find((p) => p.identity === who)!, people.filter((p) => p.identity !== who)];
    const before = (await others[0]!.report()).others[who]!.sid;
    const times = await events(it, 'reconnected');
    await it.do('resume');
    await expect.poll(() => events(it, 'reconnected'), { timeout: 30_000 }).toBe(times + 1);
    await expectMeeting(people, [it]);
    await expectMeeting([it], others);
    await it.do('data', { text: 'again', topic: `resumed ${who}` });
    for (const other of others) {
      const got = async () => (await other.report()).data.filter((d) => d.topic === `resumed ${who}`).map((d) => d.text);
      await expect.poll(got).toEqual(['again']);
    }
    await expectKnown(people, it, (them) => them?.sid, before);
  });
}

for (const who of ['browser', 'gopher', 'python', 'snake']) {
  test(`${who} begins anew and is there again for everybody with all it published`, async () => {
    const [it, others] = [people.find((p) => p.identity === who)!, people.filter((p) => p.identity !== who)];
    const before = (await others[0]!.report()).others[who]!.sid;
    const times = await events(it, 'reconnected');
    await it.do('restart');
    await expect.poll(() => events(it, 'reconnected'), { timeout: 60_000 }).toBe(times + 1);
    await expectKnown(people, it, (them) => [them?.sid !== before, them?.tracks], [true, 2]);
    await expectMeeting(people, [it]);
    await expectMeeting([it], others);
  });
}

test('a mute by the server is seen by everybody, and undone by its owner', async () => {
  for (const person of people) {
    const { tracks } = await administer('GetParticipant', person.identity);
    const track_sid = tracks!.find((track) => track.type === 'AUDIO')!.sid;
    await administer('MutePublishedTrack', person.identity, { track_sid, muted: true });
    await expectKnown(people, person, (them) => them?.muted, true);
    await person.do('mute', { muted: false });
    await expectKnown(people, person, (them) => them?.muted, false);
  }
  await expectMeeting(people);
});

test('whoever may publish no more is gone from all pictures, is told so, and may again', async () => {
  for (const person of people) {
    await administer('UpdateParticipant', person.identity, { permission: { ...may, can_publish: false } });
    await expectKnown(people, person, (them) => them?.tracks, 0);
    const own = async () => (await person.report()).mayPublish;
    await expect.poll(own, { message: `${person.identity} knows it` }).toBe(false);
    // Python's SDK goes on listing what was taken from it.
    const { published } = await person.report();
    if (person === page || person === gopher) expect(published).toBe(0);
    await administer('UpdateParticipant', person.identity, { permission: may });
    await expect.poll(own).toBe(true);
    await person.do('publish');
    await expectKnown(people, person, (them) => them?.tracks, 2);
  }
  await expectMeeting(people);
});

test('whoever may send no messages sends none, and may again', async () => {
  for (const person of people) {
    const topic = `rights of ${person.identity}`;
    for (const can_publish_data of [true, false, true]) {
      await administer('UpdateParticipant', person.identity, { permission: { ...may, can_publish_data } });
      // The SDK may refuse by itself what the server would drop.
      await person.do('data', { text: String(can_publish_data), topic }).catch(() => undefined);
      // It must have come to the server before the right does, which travels another way.
      await expectMeeting(people, [person]);
    }
    for (const other of people.filter((p) => p !== person)) {
      const got = async () => (await other.report()).data.filter((d) => d.topic === topic).map((d) => d.text);
      await expect.poll(got, { message: `${person.identity} at ${other.identity}` }).toEqual(['true', 'true']);
    }
  }
});

test('whoever may receive no more gets no media, and may again', async () => {
  for (const person of people) {
    const others = people.filter((p) => p !== person);
    await administer('UpdateParticipant', person.identity, { permission: { ...may, can_subscribe: false } });
    await expectBlind(person, others);
    await administer('UpdateParticipant', person.identity, { permission: may });
    await expectMeeting([person], others);
  }
});

/** Somebody is gone for all others. */
async function expectGone(person: Person): Promise<void> {
  people = people.filter((other) => other !== person);
  await expectKnown(people, person, (them) => them, undefined);
}

test('whoever leaves is gone for everybody', async () => {
  await snake.program.leave();
  await expectGone(snake);
});

/** Somebody is removed, is told so, and gone for all others. */
async function remove(person: InPage | InProgram): Promise<void> {
  await administer('RemoveParticipant', person.identity);
  await expectGone(person);
  await expect.poll(() => events(person, 'disconnected'), { message: `${person.identity} is told` }).toBe(1);
}

test('whoever is removed is told so, and gone for everybody', async () => {
  await remove(python);
});

test('livekit-client with two connections meets everybody, and resumes, and begins anew', async () => {
  const resolution = { width: 320, height: 180 };
  const double = await joinPage('double', { singlePeerConnection: false, videoCaptureDefaults: { resolution } });
  expect(await double.page.evaluate(() => (window as unknown as { peers: RTCPeerConnection[] }).peers.length)).toBe(2);
  await double.do('publish');
  const all = [...people, double];
  await expectMeeting(all, [double]);
  await expectMeeting([double], people);
  for (const trouble of ['resume', 'restart'] as const) {
    const times = await events(double, 'reconnected');
    await double.do(trouble);
    await expect.poll(() => events(double, 'reconnected'), { timeout: 60_000 }).toBe(times + 1);
    await expectMeeting(all, [double]);
    await expectMeeting([double], people);
  }
  people = all;
});

test('the others are removed as well, one by one', async () => {
  await remove(gopher);
  expect(await events(gopher, 'removed by server')).toBe(1);
  await remove(page);
});
