// Consultations by voice, and pictures that give way to the voice.
import { test, expect, type Browser, type Page } from '@playwright/test';
import { launch } from './support/chromium.js';
import { newConsultation, startDemo, type Demo } from './support/demo.js';
import { expectMedia } from './support/media.js';
import { admit, button, enterWaitingRoom, linkState, nameOf, openPage } from './support/visit.js';

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

/** Both in the call. */
async function meet(patientLink: string, doctorLink: string): Promise<[Page, Page]> {
  const { page: patient } = await openPage(browsers[0]!, patientLink);
  const { page: doctor } = await openPage(browsers[1]!, doctorLink);
  await expect(patient.getByText('Your microphone works')).toBeVisible();
  const me = await nameOf(patient);
  await enterWaitingRoom(patient);
  await admit(doctor, me);
  await expect(button(patient, 'Leave')).toBeVisible();
  return [patient, doctor];
}

test('a voice consultation asks for no camera, shows none, and is heard', async () => {
  const links = await newConsultation(demo, 'AUDIO');
  const [patient, doctor] = await meet(links.patient, links.doctor);
  for (const page of [patient, doctor]) {
    await expectMedia(page, { videos: 0, audio: true });
    await expect(page.getByText('You are talking by voice')).toBeVisible();
    await expect(button(page, /camera|screen/i)).toHaveCount(0);
    await expect(page.locator('video')).toHaveCount(0);
    const lights = await page.evaluate(() => {
      const { peers } = window as unknown as { peers: RTCPeerConnection[] };
      return peers.flatMap((p) => p.getSenders().map((s) => s.track?.kind)).filter((kind) => kind === 'video');
    });
    expect(lights, 'no camera is on').toEqual([]);
  }
  await button(doctor, 'End call').click();
  await expect(patient.getByRole('heading', { name: 'The consultation has ended' })).toBeVisible();
});

test('a picture that stops while the voice goes on is told as paused, and comes back', async () => {
  const [patient, doctor] = await meet(demo.patient_link, demo.doctor_link);
  await expectMedia(doctor, { videos: 1, audio: true });
  const sendPicture = (on: boolean) =>
    patient.evaluate(async (active) => {
      const { peers } = window as unknown as { peers: RTCPeerConnection[] };
      const senders = peers.flatMap((p) => p.getSenders()).filter((s) => s.track?.kind === 'video');
      for (const sender of senders) {
        const parameters = sender.getParameters();
        for (const encoding of parameters.encodings) encoding.active = active;
        await sender.setParameters(parameters);
      }
    }, on);
  await sendPicture(false);
  await expect(linkState(doctor)).toHaveText('The picture is paused, the voice is safe', { timeout: 10_000 });
  await expect(doctor.getByText('the picture comes back by itself')).toBeVisible();
  await expectMedia(doctor, { videos: 0, audio: true });
  await sendPicture(true);
  await expect(linkState(doctor)).toHaveText('Connected', { timeout: 10_000 });
  await expect(doctor.getByText('the picture comes back by itself')).toHaveCount(0);
});
