// A consultation from the links to the end, through our own pages in two browsers.
import { test, expect, type Browser } from '@playwright/test';
import { launch } from './support/chromium.js';
import { startDemo, type Demo } from './support/demo.js';
import { expectMedia, received } from './support/media.js';
import {
  admit,
  button,
  enterWaitingRoom,
  expectMessage,
  linkState,
  movement,
  nameOf,
  type Opened,
  openPage,
  say,
} from './support/visit.js';
import { Wire } from './support/wire.js';

let demo: Demo;
let wire: Wire;
let browsers: Browser[] = [];
let patient: Opened;
let doctor: Opened;
let patientName = '';
let doctorName = '';

test.describe.configure({ mode: 'serial' });

test.beforeAll(async () => {
  demo = await startDemo();
  wire = await Wire.open();
  browsers = [await launch({ proxy: wire.url }), await launch()];
  patient = await openPage(browsers[0]!, demo.patient_link, { width: 390, height: 780 });
  doctor = await openPage(browsers[1]!, demo.doctor_link);
});

test.afterAll(async () => {
  await Promise.all(browsers.map((b) => b.close()));
  wire?.close();
  await demo?.stop();
});

test.afterEach(async ({}, info) => {
  if (info.status === info.expectedStatus) return;
  console.log(demo.log.slice(-40).join('\n'));
  await patient?.page.screenshot({ path: info.outputPath('patient.png') });
  await doctor?.page.screenshot({ path: info.outputPath('doctor.png') });
});

test('the check shows the camera and hears the microphone', async () => {
  const { page } = patient;
  patientName = await nameOf(page);
  doctorName = await page.locator('.appointment strong').innerText();
  await expect(page.getByText('Your microphone works')).toBeVisible();
  expect(await movement(page, 'Your own picture')).toBeGreaterThan(0.5);
  await expect(page.getByRole('combobox', { name: 'Camera' })).toBeVisible();
});

test('who is not admitted waits, with no connection for media', async () => {
  await enterWaitingRoom(patient.page);
  await expect(patient.page.getByText(/You are next/)).toBeVisible();
  await expect(button(doctor.page, `Admit ${patientName}`)).toBeVisible();
  const peers = await patient.page.evaluate(() => (window as unknown as { peers: unknown[] }).peers.length);
  expect(peers).toBe(0);
});

test('a reload keeps the place in the waiting room', async () => {
  await patient.page.reload();
  await expect(patient.page.getByRole('heading', { name: 'You are in the waiting room' })).toBeVisible();
  await expect(button(doctor.page, `Admit ${patientName}`)).toHaveCount(1);
});

test('the admitted patient and the doctor see and hear each other', async () => {
  await admit(doctor.page, patientName);
  for (const { page } of [patient, doctor]) {
    await expectMedia(page, { videos: 1, audio: true });
    await expect(linkState(page)).toHaveText('Connected');
  }
  expect(await movement(doctor.page, `Picture of ${patientName}`)).toBeGreaterThan(0.5);
  expect(await movement(patient.page, `Picture of ${doctorName}`)).toBeGreaterThan(0.5);
});

test('chat crosses both ways, is counted while shut, and is there after a reload', async () => {
  await say(doctor.page, 'Do you take any medicine?');
  await expect(button(patient.page, 'Chat, 1 unread message')).toBeVisible();
  await expectMessage(patient.page, 'Do you take any medicine?');
  await say(patient.page, 'Ibuprofen, <b>400 mg</b>');
  await expectMessage(doctor.page, 'Ibuprofen, <b>400 mg</b>');
  await patient.page.reload();
  await expectMessage(patient.page, 'Do you take any medicine?');
  await expectMessage(patient.page, 'Ibuprofen, <b>400 mg</b>');
  await button(patient.page, 'Close chat').click();
});

test('a reload goes straight back into the call', async () => {
  for (const { page } of [patient, doctor]) await expectMedia(page, { videos: 1, audio: true });
  await doctor.page.reload();
  await expect(button(doctor.page, 'End call')).toBeVisible();
  for (const { page } of [patient, doctor]) await expectMedia(page, { videos: 1, audio: true });
});

test('mute and camera off are seen, and undone', async () => {
  await button(patient.page, 'Mute microphone').click();
  await expect(doctor.page.getByText('Microphone muted')).toBeVisible();
  // What was said before the mute is still in the listener's buffer.
  await doctor.page.waitForTimeout(1_500);
  const before = await received(doctor.page);
  await doctor.page.waitForTimeout(2_500);
  const after = await received(doctor.page);
  expect(after.audioEnergy - before.audioEnergy).toBeLessThan(1e-5);
  await button(patient.page, 'Unmute microphone').click();
  await expect(doctor.page.getByText('Microphone muted')).toBeHidden();
  await button(patient.page, 'Turn camera off').click();
  await expect(doctor.page.getByText(`${patientName}’s camera is off`)).toBeVisible();
  await button(patient.page, 'Turn camera on').click();
  await expectMedia(doctor.page, { videos: 1, audio: true });
});

test('somebody who muted stays muted after a reload', async () => {
  await button(patient.page, 'Mute microphone').click();
  await expect(doctor.page.getByText('Microphone muted')).toBeVisible();
  await patient.page.reload();
  await expect(button(patient.page, 'Unmute microphone')).toBeVisible();
  await expectMedia(doctor.page, { videos: 1, audio: false });
  await expect(doctor.page.getByText('Microphone muted')).toBeVisible();
  await button(patient.page, 'Unmute microphone').click();
  await expectMedia(doctor.page, { videos: 1, audio: true });
});

test('the shared screen arrives large, and goes again', async () => {
  await button(doctor.page, 'Share screen').click();
  await expect(button(doctor.page, 'Stop sharing')).toBeVisible();
  const screen = patient.page.getByLabel(`Screen shared by ${doctorName}`);
  await expect(screen).toBeVisible();
  await expectMedia(patient.page, { videos: 2, audio: true });
  await expect.poll(() => screen.evaluate((v) => (v as HTMLVideoElement).videoWidth)).toBeGreaterThan(0);
  await button(doctor.page, 'Stop sharing').click();
  await expect(screen).toBeHidden();
  await expectMedia(patient.page, { videos: 1, audio: true });
});

test('a cut wire is told, media goes on, and the call resumes with its chat', async () => {
  expect(wire.tunnels, 'the sockets pass the wire').toBeGreaterThan(0);
  const cut = wire.cut(4_000);
  await expect(linkState(patient.page)).toContainText('Reconnecting');
  await say(patient.page, 'Written while away');
  // Media is UDP and needs no socket: the doctor goes on seeing and hearing the patient.
  await expectMedia(doctor.page, { videos: 1, audio: true }, 3_000);
  await expect(patient.page.getByRole('log').getByText('sending…')).toBeVisible();
  await cut;
  for (const { page } of [patient, doctor]) {
    await expect(linkState(page)).toHaveText('Connected');
    await expectMedia(page, { videos: 1, audio: true });
  }
  await expectMessage(doctor.page, 'Written while away');
  await expect(doctor.page.getByRole('log').getByText('Written while away')).toHaveCount(1);
  await expect(patient.page.getByRole('log').getByText('sending…')).toBeHidden();
  await button(patient.page, 'Close chat').click();
});

test('the doctor sends the patient back and lets them in again', async () => {
  await doctor.page.getByText('People', { exact: true }).click();
  await button(doctor.page, `Send ${patientName} back to the waiting room`).click();
  await expect(patient.page.getByRole('heading', { name: 'You are in the waiting room' })).toBeVisible();
  await expect(patient.page.getByText(/Nobody sees or hears you now/)).toBeVisible();
  await button(doctor.page, `Admit ${patientName}`).click();
  for (const { page } of [patient, doctor]) await expectMedia(page, { videos: 1, audio: true });
});

test('leaving is not ending: the patient comes back', async () => {
  await button(patient.page, 'Leave').click();
  await expect(patient.page.getByRole('heading', { name: 'You left the consultation' })).toBeVisible();
  await expect(linkState(doctor.page)).toHaveText(`Waiting for ${patientName}`);
  await button(patient.page, 'Come back').click();
  await button(patient.page, /^Join/).click();
  for (const { page } of [patient, doctor]) await expectMedia(page, { videos: 1, audio: true });
});

test('the end is seen by both, with the duration', async () => {
  await button(doctor.page, 'End call').click();
  await expect(doctor.page.getByRole('heading', { name: 'The consultation has ended' })).toBeVisible();
  await expect(patient.page.getByRole('heading', { name: 'The consultation has ended' })).toBeVisible();
  await expect(patient.page.getByText(/It took \d+ (second|minute)/)).toBeVisible();
  const live = await patient.page.evaluate(() => document.querySelectorAll('video').length);
  expect(live).toBe(0);
  await button(doctor.page, 'Back to your consultations').click();
  await expect(doctor.page.getByText('Completed')).toBeVisible();
});

test('an ended consultation stays ended after a reload', async () => {
  await patient.page.reload();
  await expect(patient.page.getByRole('heading', { name: 'The consultation has ended' })).toBeVisible();
});

test('the pages ran within their policy and without errors', () => {
  // While the wire is cut the browser itself logs the refused connections.
  const own = (c: string) => !/net::ERR_|WebSocket connection to/.test(c);
  expect([...patient.complaints, ...doctor.complaints].filter(own)).toEqual([]);
});
