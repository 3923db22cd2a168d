// One person alone sees a real call: the doctor admits the demo's synthetic patient.
import path from 'node:path';
import { test, expect, type Browser } from '@playwright/test';
import { launch } from './support/chromium.js';
import { startDemo, type Demo } from './support/demo.js';
import { expectMedia } from './support/media.js';
import { button, enterWaitingRoom, linkState, movement, nameOf, openPage } from './support/visit.js';

/** Set by `npm run pictures`: where the pictures of the README go. */
const pictures = process.env.E2E_PICTURES;
const picture = (name: string) => (pictures ? { path: path.join(pictures, name) } : {});

test('the doctor admits the synthetic patient and sees it move', async () => {
  let demo: Demo | undefined;
  const browsers: Browser[] = [];
  try {
    demo = await startDemo({ bot: true });
    browsers.push(await launch(), await launch());
    const { page: patient } = await openPage(browsers[0]!, demo.patient_link, { width: 390, height: 780 });
    await expect(patient.getByText('Your microphone works')).toBeVisible();
    const me = await nameOf(patient);
    await enterWaitingRoom(patient);

    const { page: doctor } = await openPage(browsers[1]!, demo.doctor_link);
    await expect(button(doctor, /^Admit /)).toHaveCount(2);
    await expect(button(doctor, `Admit ${me}`)).toBeVisible();
    await doctor.screenshot(picture('list.png'));
    const names = await button(doctor, /^Admit /).allInnerTexts();
    const bot = names.find((name) => name !== `Admit ${me}`);
    expect(bot).toBeDefined();
    await button(doctor, bot!).click();
    await expectMedia(doctor, { videos: 1, audio: true });
    expect(await movement(doctor, `Picture of ${bot!.replace('Admit ', '')}`)).toBeGreaterThan(0.2);
    await expect(linkState(doctor)).toHaveText('Connected');
    await doctor.screenshot(picture('doctor.png'));
    await patient.screenshot(picture('patient.png'));

    // From one call to the next: the synthetic patient stays in its consultation.
    await button(doctor, 'Leave').click();
    await button(doctor, `Admit ${me}`).click();
    await expectMedia(patient, { videos: 1, audio: true });
    await expectMedia(doctor, { videos: 1, audio: true });
    await doctor.screenshot(picture('call-doctor.png'));
    await patient.screenshot(picture('call-patient.png'));
  } catch (error) {
    console.log(demo?.log.slice(-40).join('\n'));
    throw error;
  } finally {
    await Promise.all(browsers.map((b) => b.close()));
    await demo?.stop();
  }
});
