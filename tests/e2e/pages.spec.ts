// What every page promises: usable by keyboard and screen reader, on a phone, without foreign code.
import { test, expect, type Browser, type BrowserContext, type Page } from '@playwright/test';
import { launch } from './support/chromium.js';
import { startDemo, type Demo } from './support/demo.js';
import { expectMedia } from './support/media.js';
import { expectSound } from './support/sound.js';
import {
  admit,
  button,
  enterWaitingRoom,
  expectMessage,
  nameOf,
  openChat,
  openPage,
  say,
} from './support/visit.js';

const phone = { width: 360, height: 740 };

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

test('every page of a consultation is sound at 360 px', async () => {
  const { page: patient } = await openPage(browsers[0]!, demo.patient_link, phone);
  const { page: doctor } = await openPage(browsers[1]!, demo.doctor_link, phone);
  await expect(patient.getByText('Your microphone works')).toBeVisible();
  const me = await nameOf(patient);
  await expectSound(patient, 'check');
  await enterWaitingRoom(patient);
  await expectSound(patient, 'waiting room');
  await expect(button(doctor, `Admit ${me}`)).toBeVisible();
  await expectSound(doctor, 'list');
  await admit(doctor, me);
  await expect(button(patient, 'Leave')).toBeVisible();
  await expect(patient.getByLabel(/^Picture of /)).toBeVisible();
  await expectSound(patient, 'call');
  await expectSound(doctor, 'the doctor’s call');
  await openChat(doctor);
  await expectSound(doctor, 'chat');
  await button(doctor, 'Close chat').click();
  await button(doctor, 'End call').click();
  await expect(patient.getByRole('heading', { name: 'The consultation has ended' })).toBeVisible();
  await expectSound(patient, 'end');
});

test('a wrong link is told in plain words', async () => {
  const { page } = await openPage(browsers[0]!, `${demo.url}/visit#nothing-of-the-kind`, phone);
  await expect(page.getByRole('heading', { name: 'This link is not valid.' })).toBeVisible();
  await expectSound(page, 'refusal');
  const { page: landing } = await openPage(browsers[0]!, demo.url, phone);
  await expect(landing.getByRole('heading', { name: 'Video consultations' })).toBeVisible();
  await expectSound(landing, 'landing');
});

test('the secret of a link never leaves in an address', async () => {
  const secret = new URL(demo.doctor_link).hash.slice(1);
  expect(secret.length).toBeGreaterThan(15);
  const page = await (await browsers[0]!.newContext()).newPage();
  const addresses: string[] = [];
  page.on('request', (r) => addresses.push(r.url().split('#')[0]!, r.headers().referer ?? ''));
  page.on('websocket', (w) => addresses.push(w.url()));
  await page.goto(demo.doctor_link);
  await expect(page.getByRole('heading', { name: 'Your consultations today' })).toBeVisible();
  expect(addresses.filter((a) => a.includes(secret))).toEqual([]);
  const foreign = addresses.filter((a) => a !== '' && new URL(a).host !== new URL(demo.url).host);
  expect(foreign).toEqual([]);
});

test('the pages forbid code that is not ours', async () => {
  for (const path of ['/', '/visit', '/doctor', '/check']) {
    const response = await fetch(demo.url + path);
    expect(response.status).toBe(200);
    const policy = response.headers.get('content-security-policy') ?? '';
    expect(policy).toContain("script-src 'self'");
    expect(policy).toContain("style-src 'self'");
    expect(policy).not.toMatch(/unsafe|\*|https:/);
    expect(response.headers.get('x-content-type-options')).toBe('nosniff');
    expect(response.headers.get('referrer-policy')).toBe('no-referrer');
  }
});

for (const [has, refused] of [
  ['a voice', ['video']],
  ['ears only', ['video', 'audio']],
] as const) {
  test(`who has ${has} takes part`, async () => {
    const clinic = await startDemo();
    const contexts: BrowserContext[] = [];
    try {
      const refuse = (page: Page) =>
        page.addInitScript((kinds) => {
          const native = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
          navigator.mediaDevices.getUserMedia = async (wanted) => {
            if (kinds.some((kind) => wanted?.[kind])) throw new DOMException('refused', 'NotAllowedError');
            return native(wanted);
          };
        }, refused);
      const { page: patient } = await openPage(browsers[0]!, clinic.patient_link, phone, refuse);
      const { page: doctor } = await openPage(browsers[1]!, clinic.doctor_link);
      contexts.push(patient.context(), doctor.context());
      await expect(patient.getByText('This page may not use your camera.')).toBeVisible();
      await expect(button(patient, 'Try again')).toHaveCount(refused.length);
      await expectSound(patient, 'permission help');
      const name = await nameOf(patient);
      await enterWaitingRoom(patient);
      await admit(doctor, name);
      await expectMedia(patient, { videos: 1, audio: true });
      await expect(doctor.getByText(`${name}’s camera is off`)).toBeVisible();
      if (has === 'a voice') await expectMedia(doctor, { videos: 0, audio: true });
      await expect(doctor.getByText('Microphone muted')).toBeVisible({ visible: has !== 'a voice' });
      await say(patient, 'I hear you');
      await expectMessage(doctor, 'I hear you');
    } finally {
      await Promise.all(contexts.map((c) => c.close()));
      await clinic.stop();
    }
  });
}
