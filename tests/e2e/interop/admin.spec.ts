// Room administration by the server SDKs, with a browser in the room, and what their receivers say to
// our webhooks.
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import { promisify } from 'node:util';

import { expect, test, type Browser, type Page } from '@playwright/test';
import {
  AccessToken,
  DataPacket_Kind,
  RoomServiceClient,
  TwirpError,
  WebhookReceiver,
  type VideoGrant,
} from 'livekit-server-sdk';

import { launch } from '../support/chromium.js';
import { metric, roomToken, startDemo, type Demo } from '../support/demo.js';
import { openSdkPage, serveSdkPage, type SdkSite } from '../support/sdk.js';

const ROOM = 'ward';
const script = path.resolve(import.meta.dirname, '../../interop/python/test_admin.py');
let demo: Demo;
let site: SdkSite;
let browser: Browser;
let page: Page;
let admin: RoomServiceClient;
/** What the endpoint was sent. */
const hooks: { body: string; authorization: string; kind: string }[] = [];
let endpoint: http.Server;

test.describe.configure({ mode: 'serial' });

test.beforeAll(async () => {
  endpoint = http.createServer((request, response) => {
    let body = '';
    request.on('data', (chunk: Buffer) => (body += chunk.toString('utf8')));
    request.on('end', () => {
      const { authorization = '', 'content-type': kind = '' } = request.headers;
      hooks.push({ body, authorization, kind });
      response.writeHead(200).end();
    });
  });
  endpoint.listen(0, '127.0.0.1');
  await once(endpoint, 'listening');
  const url = `http://127.0.0.1:${(endpoint.address() as AddressInfo).port}/hook`;
  const hook = { name: 'rooms', url, rooms: true };
  demo = await startDemo({ env: { BEDSIDE_WEBHOOKS: JSON.stringify([hook]) } });
  admin = new RoomServiceClient(demo.url, demo.api_key, demo.api_secret);
  site = await serveSdkPage();
  browser = await launch();
  page = await openSdkPage(browser, site);
});

test.afterAll(async () => {
  await browser?.close();
  site?.close();
  await demo?.stop();
  endpoint?.close();
});

test.afterEach(({}, info) => {
  if (info.status !== info.expectedStatus) console.log(demo.log.slice(-20).join('\n'));
});

/** A client whose tokens grant something else. */
async function weaker(grant: VideoGrant | undefined): Promise<RoomServiceClient> {
  const client = new RoomServiceClient(demo.url, demo.api_key, demo.api_secret);
  const token = new AccessToken(demo.api_key, demo.api_secret, { identity: 'somebody' });
  if (grant) token.addGrant(grant);
  const header: Record<string, string> = grant ? { Authorization: `Bearer ${await token.toJwt()}` } : {};
  Object.assign(client, { authHeader: async () => header });
  return client;
}

/** Every call of the SDK. The room and the person need not be there where the grant is wanting. */
const calls: Record<string, (client: RoomServiceClient) => Promise<unknown>> = {
  createRoom: (client) => client.createRoom({ name: ROOM }),
  listRooms: (client) => client.listRooms(),
  deleteRoom: (client) => client.deleteRoom(ROOM),
  listParticipants: (client) => client.listParticipants(ROOM),
  getParticipant: (client) => client.getParticipant(ROOM, 'browser'),
  removeParticipant: (client) => client.removeParticipant(ROOM, 'browser'),
  mutePublishedTrack: (client) => client.mutePublishedTrack(ROOM, 'browser', 'TR_AM1', true),
  updateParticipant: (client) => client.updateParticipant(ROOM, 'browser', { name: 'x' }),
  updateSubscriptions: (client) => client.updateSubscriptions(ROOM, 'browser', ['TR_AM1'], true),
  sendData: (client) => client.sendData(ROOM, new Uint8Array(1), DataPacket_Kind.RELIABLE, {}),
  updateRoomMetadata: (client) => client.updateRoomMetadata(ROOM, 'x'),
};

async function failure(call: Promise<unknown>): Promise<[number | undefined, string | undefined]> {
  const error = await call.then(
    () => undefined,
    (error: unknown) => error as TwirpError,
  );
  return [error?.status, error?.code];
}

test('no call is served without its grant', async () => {
  const nothing = await weaker(undefined);
  const joins = await weaker({ roomJoin: true, room: ROOM });
  const another = await weaker({ roomAdmin: true, room: 'another' });
  for (const [name, call] of Object.entries(calls)) {
    expect(await failure(call(nothing)), name).toEqual([401, 'unauthenticated']);
    expect(await failure(call(joins)), name).toEqual([403, 'permission_denied']);
    expect(await failure(call(another)), name).toEqual([403, 'permission_denied']);
  }
  const stranger = new RoomServiceClient(demo.url, demo.api_key, 'another secret of thirty-two bytes');
  expect(await failure(stranger.listRooms())).toEqual([401, 'unauthenticated']);
  expect(await metric(demo, 'bedside_admin_refused_grant_total')).toBe(22);
});

test('a room is made once, listed, changed and deleted', async () => {
  const made = await admin.createRoom({ name: 'short', emptyTimeout: 60, maxParticipants: 7, metadata: 'one' });
  expect(made).toMatchObject({ name: 'short', emptyTimeout: 60, maxParticipants: 7, metadata: 'one' });
  expect(made.sid).toMatch(/^RM_/);
  expect(Math.abs(Number(made.creationTime) - Date.now() / 1000)).toBeLessThan(60);
  expect((await admin.createRoom({ name: 'short' })).sid).toBe(made.sid);
  expect((await admin.listRooms()).map((room) => room.name)).toContain('short');
  expect(await admin.listRooms(['elsewhere'])).toEqual([]);
  expect((await admin.updateRoomMetadata('short', 'two')).metadata).toBe('two');
  await admin.deleteRoom('short');
  expect(await admin.listRooms(['short'])).toEqual([]);
  expect(await failure(admin.deleteRoom('short'))).toEqual([404, 'not_found']);
  expect(await failure(admin.moveParticipant('short', 'a', 'b'))).toEqual([501, 'unimplemented']);
});

test('a person is seen, muted and changed', async () => {
  const token = await roomToken(ROOM, 'browser');
  const url = demo.url.replace('http', 'ws');
  await page.evaluate(([u, t]) => window.bench.join(u, t), [url, token] as const);
  await page.evaluate(() => window.bench.publish());
  const me = () => admin.getParticipant(ROOM, 'browser');
  await expect.poll(async () => (await me()).tracks.length, { timeout: 20_000 }).toBe(2);
  expect((await admin.listParticipants(ROOM)).map((one) => one.identity)).toEqual(['browser']);
  const [room] = await admin.listRooms([ROOM]);
  expect([room?.numParticipants, room?.numPublishers]).toEqual([1, 1]);

  const microphone = (await me()).tracks.find((track) => track.sid.startsWith('TR_AM'))!;
  const muted = await admin.mutePublishedTrack(ROOM, 'browser', microphone.sid, true);
  expect(muted.muted).toBe(true);
  const hears = () => page.evaluate(() => window.bench.room!.localParticipant.isMicrophoneEnabled);
  await expect.poll(hears).toBe(false);
  const unmute = admin.mutePublishedTrack(ROOM, 'browser', microphone.sid, false);
  expect(await failure(unmute)).toEqual([412, 'failed_precondition']);
  expect(await failure(calls.mutePublishedTrack!(admin))).toEqual([404, 'not_found']);

  const changed = await admin.updateParticipant(ROOM, 'browser', {
    name: 'Ann',
    metadata: 'm',
    attributes: { role: 'DOCTOR' },
    permission: { canSubscribe: true, canPublish: false, canPublishData: true },
  });
  expect([changed.name, changed.metadata, changed.attributes]).toEqual(['Ann', 'm', { role: 'DOCTOR' }]);
  expect(changed.permission?.canPublish).toBe(false);
  await expect.poll(async () => (await me()).tracks.length).toBe(0);
  const seen = () =>
    page.evaluate(() => {
      const { name, metadata, attributes, permissions } = window.bench.room!.localParticipant;
      return [name, metadata, attributes.role, permissions?.canPublish];
    });
  await expect.poll(seen).toEqual(['Ann', 'm', 'DOCTOR', false]);
  const without = await admin.updateParticipant(ROOM, 'browser', { attributes: { role: '' } });
  expect(without.attributes).toEqual({});
  expect(without.name).toBe('Ann');
});

test('data, metadata and subscriptions reach the person', async () => {
  const text = (word: string) => new TextEncoder().encode(word);
  const { RELIABLE } = DataPacket_Kind;
  await admin.sendData(ROOM, text('for all'), RELIABLE, { topic: 'news' });
  await admin.sendData(ROOM, text('for one'), RELIABLE, { destinationIdentities: ['browser'] });
  await admin.sendData(ROOM, text('for nobody'), RELIABLE, { destinationIdentities: ['nobody'] });
  await admin.sendData(ROOM, text('the last'), RELIABLE, {});
  const got = () => page.evaluate(() => window.bench.data.map((one) => [one.text, one.topic ?? '']));
  await expect.poll(got).toEqual([['for all', 'news'], ['for one', ''], ['the last', '']]);
  await admin.updateRoomMetadata(ROOM, 'of the room');
  await expect.poll(() => page.evaluate(() => window.bench.room!.metadata)).toBe('of the room');
  await admin.updateSubscriptions(ROOM, 'browser', ['TR_AM1'], false);
  expect(await failure(admin.updateSubscriptions(ROOM, 'nobody', [], true))).toEqual([404, 'not_found']);
});

test('every call of the Python SDK', async () => {
  const env = {
    ...process.env,
    BEDSIDE_URL: demo.url,
    BEDSIDE_API_KEY: demo.api_key,
    BEDSIDE_API_SECRET: demo.api_secret,
    BEDSIDE_ROOM: ROOM,
    BEDSIDE_HOOKS: JSON.stringify(hooks.slice(0, 20)),
  };
  const { stderr } = await promisify(execFile)(process.env.E2E_PYTHON ?? 'python3', [script], { env });
  expect(stderr).toContain('OK');
});

test('a removed person is out, and a deleted room is closed', async () => {
  await admin.removeParticipant(ROOM, 'browser');
  const state = () => page.evaluate(() => window.bench.room!.state);
  await expect.poll(state).toBe('disconnected');
  expect(await failure(admin.getParticipant(ROOM, 'browser'))).toEqual([404, 'not_found']);
  const token = await roomToken(ROOM, 'browser');
  const url = demo.url.replace('http', 'ws');
  await page.evaluate(([u, t]) => window.bench.join(u, t), [url, token] as const);
  await admin.deleteRoom(ROOM);
  await expect.poll(state).toBe('disconnected');
});

test('the SDK’s receiver takes our webhooks and refuses a changed one', async () => {
  const receiver = new WebhookReceiver(demo.api_key, demo.api_secret);
  const names = () => hooks.map((hook) => JSON.parse(hook.body).event as string);
  const all = [
    'room_started',
    'participant_joined',
    'track_published',
    'track_unpublished',
    'participant_left',
    'room_finished',
  ];
  await expect.poll(() => all.filter((name) => !names().includes(name)), { timeout: 20_000 }).toEqual([]);
  for (const { body, authorization, kind } of hooks) {
    expect(kind).toBe('application/webhook+json');
    const event = await receiver.receive(body, authorization);
    expect(event.room?.sid).toMatch(/^RM_/);
    expect(event.id).not.toBe('');
    await expect(receiver.receive(body.replace('RM_', 'RM-'), authorization)).rejects.toThrow();
    const other = new WebhookReceiver(demo.api_key, 'another secret of thirty-two bytes');
    await expect(other.receive(body, authorization)).rejects.toThrow();
  }
  const published = hooks.map((hook) => JSON.parse(hook.body)).find((hook) => hook.event === 'track_published');
  expect(published.participant.identity).toBe('browser');
  expect(published.track.sid).toMatch(/^TR_/);
  expect(published.room.name).toBe(ROOM);
});
