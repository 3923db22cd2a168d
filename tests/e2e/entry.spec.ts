// The step from the waiting room into the call when answers, frames and the call's code come in an
// unlucky order, as they do on slow links and busy machines: one entry, and only as long as it is wanted.
import { test, expect, type Browser, type Page } from '@playwright/test';
import { launch } from './support/chromium.js';
import { newConsultation, startDemo, type Demo } from './support/demo.js';
import { expectMedia, explain } from './support/media.js';
import { admit, button, enterWaitingRoom, nameOf, openPage } from './support/visit.js';

let demo: Demo;
let browsers: Browser[] = [];

test.beforeAll(async () => {
  demo = await startDemo();
  browsers = [await launch(), await launch()];
});

test.afterAll(async () => {
  await Promise.all(browsers.map((b) => b.close()));
  await demo?.stop();
});

/** Something that is held back until it is let go. */
function gate(): { open: () => void; opened: Promise<void> } {
  let open = () => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { open, opened };
}

interface People {
  patient: Page;
  doctor: Page;
  name: string;
  /** How often the patient's page has opened the room. */
  entries: () => number;
}

/** Both pages; `prepare` may put things between the patient's page and the server. */
async function open(prepare: (page: Page) => Promise<unknown>): Promise<People> {
  const links = await newConsultation(demo, 'VIDEO');
  let entries = 0;
  const { page: patient } = await openPage(browsers[0]!, links.patient, undefined, async (page) => {
    page.on('websocket', (socket) => (entries += new URL(socket.url()).pathname.startsWith('/rtc') ? 1 : 0));
    await prepare(page);
  });
  const { page: doctor } = await openPage(browsers[1]!, links.doctor);
  await expect(patient.getByText('Your microphone works')).toBeVisible();
  return { patient, doctor, name: await nameOf(patient), entries: () => entries };
}

const holdCode = (page: Page, until: Promise<void>) =>
  page.route('**/assets/call-*.js', async (route) => {
    await until;
    await route.continue();
  });

/** Each answer to the question for the room passes here: its number from 1, and whether it is the room. */
const watchAnswers = (page: Page, pass: (number: number, room: boolean) => Promise<unknown> | void) => {
  let asked = 0;
  return page.route('**/join', async (route) => {
    const number = (asked += 1);
    const response = await route.fetch();
    await pass(number, response.status() === 200);
    await route.fulfill({ response });
  });
};

test('who is told twice to come in comes in once', async () => {
  const code = gate();
  let rooms = 0;
  const tell: (() => void)[] = [];
  const { patient, doctor, name, entries } = await open(async (page) => {
    await holdCode(page, code.opened);
    await watchAnswers(page, (_, room) => void (rooms += room ? 1 : 0));
    await page.routeWebSocket('**/channel', (socket) => {
      const server = socket.connectToServer();
      tell.push(() => socket.send(JSON.stringify({ type: 'ADMITTED', payload: {} })));
      server.onMessage((message) => socket.send(message));
    });
  });
  await enterWaitingRoom(patient);
  await admit(doctor, name);
  await expect.poll(() => rooms, 'the room is given').toBeGreaterThan(0);
  for (const again of tell) again();
  await patient.waitForTimeout(1000);
  code.open();
  await expect(button(patient, 'Leave')).toBeVisible();
  for (const page of [patient, doctor]) await expectMedia(page, { videos: 1, audio: true });
  expect(entries(), await explain(patient)).toBe(1);
});

test('who is admitted while an older answer is on its way comes in all the same', async () => {
  const [older, admitted] = [gate(), gate()];
  const { patient, doctor, name } = await open(async (page) => {
    await watchAnswers(page, (number) => (number === 1 ? older.opened : undefined));
    await page.routeWebSocket('**/channel', (socket) => {
      socket.connectToServer().onMessage((message) => {
        socket.send(message);
        if (message.toString().includes('"ADMITTED"')) admitted.open();
      });
    });
  });
  await button(patient, /^Join/).click();
  await admit(doctor, name);
  await admitted.opened;
  await patient.waitForTimeout(500);
  older.open();
  await expect(button(patient, 'Leave')).toBeVisible();
  for (const page of [patient, doctor]) await expectMedia(page, { videos: 1, audio: true });
});

test('who leaves while the door opens is not pulled in, and can come back at once', async () => {
  const code = gate();
  const { patient, doctor, name, entries } = await open((page) => holdCode(page, code.opened));
  await enterWaitingRoom(patient);
  await admit(doctor, name);
  await expect(patient.getByRole('heading', { name: 'Your doctor is ready' })).toBeVisible();
  await button(patient, 'Leave').click();
  await button(patient, 'Come back').click();
  await button(patient, /^Join/).click();
  await patient.waitForTimeout(500);
  expect(entries()).toBe(0);
  code.open();
  await expect(button(patient, 'Leave')).toBeVisible();
  for (const page of [patient, doctor]) await expectMedia(page, { videos: 1, audio: true });
  expect(entries(), await explain(patient)).toBe(1);
});

test('who leaves while the page tries to come back stays out', async () => {
  const [asked, later] = [gate(), gate()];
  let broken = true;
  let entered = 0;
  const { patient, doctor, name } = await open(async (page) => {
    await watchAnswers(page, (_, room) => {
      // The first room is the admission's; the next ones are asked for to come back.
      if (!room || (entered += 1) === 1) return;
      asked.open();
      return later.opened;
    });
    await page.routeWebSocket(/\/rtc/, (socket) => (broken ? socket.close() : void socket.connectToServer()));
  });
  await enterWaitingRoom(patient);
  await admit(doctor, name);
  await asked.opened;
  await button(patient, 'Leave').click();
  await expect(button(patient, 'Come back')).toBeVisible();
  broken = false;
  later.open();
  await patient.waitForTimeout(3000);
  const { connected, live } = await patient.evaluate(() => {
    const { peers } = window as unknown as { peers: RTCPeerConnection[] };
    const tracks = peers.flatMap((p) => p.getSenders()).flatMap(({ track }) => (track ? [track] : []));
    return {
      connected: peers.filter((p) => p.connectionState === 'connected').length,
      live: tracks.filter((t) => t.readyState === 'live').length,
    };
  });
  expect({ connected, live }, await explain(patient)).toEqual({ connected: 0, live: 0 });
});

test('a doctor who presses twice enters once', async () => {
  const { patient, doctor, name } = await open(async () => {});
  let entries = 0;
  doctor.on('websocket', (socket) => (entries += new URL(socket.url()).pathname.startsWith('/rtc') ? 1 : 0));
  await enterWaitingRoom(patient);
  await button(doctor, `Admit ${name}`).evaluate((admit: HTMLButtonElement) => {
    admit.click();
    admit.click();
  });
  for (const page of [patient, doctor]) await expectMedia(page, { videos: 1, audio: true });
  expect(entries, await explain(doctor)).toBe(1);
});
