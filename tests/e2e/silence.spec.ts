// Media lost for longer than a browser's patience: both are told, and the call comes back by itself.
import { test, expect, type Browser } from '@playwright/test';
import { launch } from './support/chromium.js';
import { startDemo, type Demo } from './support/demo.js';
import { Forwarder } from './support/forwarder.js';
import { expectMedia } from './support/media.js';
import { admit, button, enterWaitingRoom, linkState, nameOf, openPage } from './support/visit.js';

test('a patient without media for 20 s is shown as reconnecting, then comes back', async () => {
  test.setTimeout(180_000);
  let demo: Demo | undefined;
  const browsers: Browser[] = [];
  const forwarder = await Forwarder.open();
  try {
    demo = await startDemo();
    browsers.push(await launch(), await launch());
    const divert = (page: Parameters<Forwarder['divert']>[0]) => forwarder.divert(page);
    const { page: patient } = await openPage(browsers[0]!, demo.patient_link, undefined, divert);
    const { page: doctor } = await openPage(browsers[1]!, demo.doctor_link);
    const name = await nameOf(patient);
    await enterWaitingRoom(patient);
    await admit(doctor, name);
    for (const page of [patient, doctor]) await expectMedia(page, { videos: 1, audio: true });
    expect(forwarder.clients(), 'media really goes through the forwarder').toBeGreaterThan(0);

    const silence = forwarder.silence(20_000);
    await expect(linkState(patient)).toContainText('Reconnecting', { timeout: 40_000 });
    await expect(linkState(doctor)).toHaveText(`${name} is reconnecting…`, { timeout: 40_000 });
    await silence;
    for (const page of [patient, doctor]) {
      await expect(linkState(page)).toHaveText('Connected', { timeout: 40_000 });
      await expectMedia(page, { videos: 1, audio: true });
    }
    await button(doctor, 'End call').click();
    await expect(patient.getByRole('heading', { name: 'The consultation has ended' })).toBeVisible();
  } catch (error) {
    console.log(demo?.log.slice(-40).join('\n'));
    throw error;
  } finally {
    await Promise.all(browsers.map((b) => b.close()));
    forwarder.close();
    await demo?.stop();
  }
});
