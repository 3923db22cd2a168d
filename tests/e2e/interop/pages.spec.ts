// Foreign clients as the patient of a consultation, with our own page of the doctor on the other side:
// the Node SDK, and the prebuilt conference of the React components.
import path from 'node:path';
import { test, expect, type Browser, type Page } from '@playwright/test';
import { launch, watchPeers } from '../support/chromium.js';
import { newConsultation, startDemo, type Demo } from '../support/demo.js';
import { Foreign } from '../support/foreign.js';
import { expectMedia } from '../support/media.js';
import { serveSdkPage, type SdkSite } from '../support/sdk.js';
import { admit, button, movement, openPage } from '../support/visit.js';

interface Report {
  frames: number;
  sounds: number;
  width: number;
  events: string[];
}

interface Access {
  accessToken: string;
  url: string;
}

let demo: Demo;
let site: SdkSite;
let browsers: Browser[] = [];
let node: Foreign<Report> | undefined;

test.beforeAll(async () => {
  demo = await startDemo();
  site = await serveSdkPage('127.0.0.1', 'components-page');
  browsers = [await launch(), await launch()];
});

test.afterAll(async () => {
  node?.stop();
  await Promise.all(browsers.map((b) => b.close()));
  site?.close();
  await demo?.stop();
});

test.afterEach(async ({}, info) => {
  if (info.status === info.expectedStatus) return;
  console.log([...demo.log.slice(-20), ...(node?.said ?? []).slice(-20)].join('\n'));
  for (const page of browsers.flatMap((b) => b.contexts()).flatMap((c) => c.pages())) {
    await page.screenshot({ path: info.outputPath(`${new URL(page.url()).pathname.slice(1) || 'page'}.png`) });
  }
});

/** What a patient's application does with its link: asks for the room until it is let in. */
async function patient(link: string): Promise<() => Promise<Access | undefined>> {
  const post = (where: string, body: object, token?: string) => {
    const headers = { 'content-type': 'application/json', ...(token ? { authorization: `Bearer ${token}` } : {}) };
    return fetch(`${demo.url}/api/v1/${where}`, { method: 'POST', headers, body: JSON.stringify(body) });
  };
  const exchanged = await post('links/exchange', { link: new URL(link).hash.slice(1) });
  const { token, sessionId } = (await exchanged.json()) as { token: string; sessionId: string };
  return async () => {
    const answer = await post(`consultations/sessions/${sessionId}/join`, {}, token);
    return answer.status === 200 ? ((await answer.json()) as Access) : undefined;
  };
}

/** The doctor's page in a call with a patient who has just been let in. */
async function letIn(): Promise<{ doctor: Page; access: Access }> {
  const links = await newConsultation(demo, 'VIDEO');
  const join = await patient(links.patient);
  expect(await join(), 'whoever is not admitted waits').toBeUndefined();
  const { page: doctor } = await openPage(browsers[0]!, links.doctor);
  await admit(doctor, 'Mr. Heard');
  const access = await join();
  expect(access).toBeDefined();
  return { doctor, access: access! };
}

const picture = 'Picture of Mr. Heard';

test('the Node SDK in a call with the page of the doctor', async () => {
  const { doctor, access } = await letIn();
  const program = path.join(import.meta.dirname, 'node/participant.ts');
  node = await Foreign.join<Report>(process.execPath, [program, access.url, access.accessToken]);
  await node.do('publish');
  await expectMedia(doctor, { videos: 1, audio: true });
  expect(await movement(doctor, picture)).toBeGreaterThan(0.5);
  const before = await node.report();
  const gained = async () => {
    const now = await node!.report();
    return now.frames >= before.frames + 20 && now.sounds >= before.sounds + 20;
  };
  await expect.poll(gained, { timeout: 30_000 }).toBe(true);
  await button(doctor, 'End call').click();
  await expect.poll(async () => (await node!.report()).events).toContain('disconnected');
});

test('the prebuilt conference of the React components in a call with the page of the doctor', async () => {
  const { doctor, access } = await letIn();
  const page = await (await browsers[1]!.newContext()).newPage();
  await watchPeers(page);
  await page.goto(site.url);
  await page.waitForFunction(() => document.title === 'ready');
  await page.evaluate(([url, token]) => window.enter(url, token), [access.url, access.accessToken] as const);
  await expectMedia(doctor, { videos: 1, audio: true });
  await expectMedia(page, { videos: 1, audio: true });
  expect(await movement(doctor, picture)).toBeGreaterThan(0.5);
  // A tile with the doctor's name and a picture that runs; the other one is the patient's own.
  await expect(page.locator('.lk-participant-tile')).toHaveCount(2);
  await expect(page.locator('.lk-participant-name', { hasText: 'Dr. Voice' }).first()).toBeAttached();
  await button(page, 'Microphone').click();
  await expect(doctor.getByText('Microphone muted')).toBeVisible();
  await button(doctor, 'End call').click();
  await expect(page.getByText('The call is over')).toBeVisible();
});
