// Real STOMP clients in one consultation with our own pages: @stomp/stompjs in Node and, over
// sockjs-client, in Chromium.
import { test, expect, type Browser, type Page } from '@playwright/test';
import { Client, type IMessage } from '@stomp/stompjs';
import WebSocket from 'ws';
import { launch } from './support/chromium.js';
import { newConsultation, startDemo, type Demo } from './support/demo.js';
import { openSdkPage, serveSdkPage, type SdkSite } from './support/sdk.js';
import { admit, button, enterWaitingRoom, expectMessage, nameOf, openChat, openPage, say } from './support/visit.js';

interface Frame {
  type: string;
  payload: Record<string, unknown>;
}

let demo: Demo;
let site: SdkSite;
let browsers: Browser[] = [];
let patient: Page;
let doctor: Page;
let session = '';
let tokens = { patient: '', doctor: '' };
let links = { patient: '', doctor: '' };

/** A patient's client in Node that remembers what it has and asks for the rest after a loss. */
class NodeClient {
  readonly frames: Frame[] = [];
  readonly client: Client;
  #last = 0;

  constructor(token: string) {
    this.client = new Client({
      // `ws` stands for the WebSocket that Node's clients bring.
      webSocketFactory: () => new WebSocket(`${socketUrl()}/websocket`, ['v12.stomp']) as never,
      connectHeaders: { Authorization: `Bearer ${token}` },
      reconnectDelay: 200,
      onConnect: () => {
        const headers = { after: String(this.#last), receipt: 'subscribed' };
        this.client.subscribe(`/topic/session.${session}`, (m) => this.#keep(m), headers);
      },
    });
  }

  #keep(message: IMessage): void {
    const frame = JSON.parse(message.body) as Frame;
    this.frames.push(frame);
    if (frame.type === 'CHAT_MESSAGE') this.#last = Math.max(this.#last, Number(frame.payload.sequence));
  }

  get texts(): unknown[] {
    return this.frames
      .filter((f) => f.type === 'CHAT_MESSAGE' && f.payload.messageType === 'text')
      .map((f) => f.payload.content);
  }

  /** Sends and waits until the server has committed it. */
  send(content: string): Promise<void> {
    return new Promise((resolve) => {
      const receipt = `r-${content}`;
      this.client.watchForReceipt(receipt, () => resolve());
      this.client.publish({
        destination: '/app/chat.send',
        headers: { receipt },
        body: JSON.stringify({ type: 'CHAT_MESSAGE', payload: { sessionId: session, content, messageType: 'text' } }),
      });
    });
  }

  mark(destination: '/app/chat.read' | '/app/chat.delivered'): void {
    const last = this.frames.filter((f) => f.type === 'CHAT_MESSAGE').at(-1)!;
    this.client.publish({
      destination,
      body: JSON.stringify({ sessionId: session, messageId: last.payload.messageId }),
    });
  }
}

const socketUrl = () => `${demo.url.replace('http', 'ws')}/ws/consultation`;

async function exchange(link: string): Promise<{ token: string; sessionId: string }> {
  const answer = await fetch(`${demo.url}/api/v1/links/exchange`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ link: new URL(link).hash.slice(1) }),
  });
  return (await answer.json()) as { token: string; sessionId: string };
}

test.describe.configure({ mode: 'serial' });

test.beforeAll(async () => {
  demo = await startDemo();
  site = await serveSdkPage('127.0.0.1', 'stomp-page');
  links = await newConsultation(demo, 'AUDIO');
  const [forPatient, forDoctor] = [await exchange(links.patient), await exchange(links.doctor)];
  session = forPatient.sessionId;
  tokens = { patient: forPatient.token, doctor: forDoctor.token };
  browsers = [await launch(), await launch(), await launch()];
  patient = (await openPage(browsers[0]!, links.patient)).page;
  doctor = (await openPage(browsers[1]!, links.doctor)).page;
  const name = await nameOf(patient);
  await enterWaitingRoom(patient);
  await admit(doctor, name);
  await expect(button(patient, 'Leave')).toBeVisible();
});

test.afterAll(async () => {
  await Promise.all(browsers.map((b) => b.close()));
  site?.close();
  await demo?.stop();
});

test.afterEach(({}, info) => {
  if (info.status !== info.expectedStatus) console.log(demo.log.slice(-40).join('\n'));
});

test('a STOMP client in Node and our pages chat with each other, and receipts arrive', async () => {
  const client = new NodeClient(tokens.patient);
  client.client.activate();
  await expect.poll(() => client.frames.some((f) => f.type === 'READY')).toBe(true);
  await client.send('from stompjs');
  await expectMessage(doctor, 'from stompjs');
  // The doctor's panel is open: the message is read, and its sender hears of it.
  const receipts = (status: string) =>
    client.frames.filter((f) => f.type === 'RECEIPT' && f.payload.status === status);
  await expect.poll(() => receipts('read').length).toBeGreaterThan(0);
  await say(doctor, 'from the page');
  await expect.poll(() => client.texts).toEqual(['from stompjs', 'from the page']);
  await expectMessage(patient, 'from the page');
  client.mark('/app/chat.read');
  await expect(doctor.getByRole('log').getByText('Read', { exact: false })).toBeVisible();
  await client.client.deactivate();
});

test('a client that loses its connection misses nothing', async () => {
  const client = new NodeClient(tokens.patient);
  client.client.activate();
  await expect.poll(() => client.texts.length).toBe(2);
  for (let round = 0; round < 3; round += 1) {
    client.client.forceDisconnect();
    await say(doctor, `round ${round}, one`);
    await say(doctor, `round ${round}, two`);
    await expect.poll(() => client.texts.at(-1)).toBe(`round ${round}, two`);
  }
  expect(client.texts).toEqual([
    'from stompjs',
    'from the page',
    ...[0, 1, 2].flatMap((round) => [`round ${round}, one`, `round ${round}, two`]),
  ]);
  await client.client.deactivate();
});

test('stompjs in Chromium, plain and over SockJS, is in the same chat', async () => {
  for (const sockjs of [false, true]) {
    const page = await openSdkPage(browsers[2]!, site);
    await page.evaluate(
      (options) => window.stomp.connect(options),
      { url: socketUrl(), token: tokens.doctor, session, sockjs },
    );
    const text = sockjs ? 'over SockJS' : 'over a plain WebSocket';
    await page.evaluate(([id, said]) => window.stomp.say(id!, said!), [session, text]);
    await expectMessage(patient, text);
    await say(patient, `heard ${text}`);
    await page.waitForFunction((said) => window.stomp.bodies.some((b) => b.includes(said)), `heard ${text}`);
    await page.context().close();
  }
});

test('nobody else may subscribe', async () => {
  const other = await newConsultation(demo, 'AUDIO');
  const { token } = await exchange(other.patient);
  const page = await openSdkPage(browsers[2]!, site);
  const refused = await page.evaluate(
    (options) => window.stomp.connect(options).then(() => 'connected', (error: Error) => error.message),
    { url: socketUrl(), token, session, sockjs: true },
  );
  expect(refused).toContain('somebody else');
  expect(await page.evaluate(() => window.stomp.errors)).toEqual(['not allowed']);
});

test('a picture goes from page to page, and a script does not', async () => {
  await openChat(doctor);
  const png = Buffer.from(
    'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==',
    'base64',
  );
  await doctor.locator('input[type=file]').setInputFiles({ name: 'knee.png', mimeType: 'image/png', buffer: png });
  await openChat(patient);
  await expect(patient.getByRole('img', { name: 'Picture knee.png' })).toBeVisible();
  const saved = patient.waitForEvent('download');
  await patient.getByRole('button', { name: /^Save knee\.png/ }).click();
  expect((await saved).suggestedFilename()).toBe('knee.png');
  const svg = Buffer.from('<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>');
  await doctor.locator('input[type=file]').setInputFiles({ name: 'x.png', mimeType: 'image/png', buffer: svg });
  await expect(doctor.getByText('Files of this type cannot be sent.')).toBeVisible();
});
