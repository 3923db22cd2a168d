// A stranger checks camera, sound and connection, and the clinic looks the result up.
import { test, expect, type Browser } from '@playwright/test';
import { launch } from './support/chromium.js';
import { finding, runCheck } from './support/check.js';
import { metric, startDemo, type Demo } from './support/demo.js';
import { expectSound } from './support/sound.js';
import { admit, button, enterWaitingRoom, nameOf, openPage } from './support/visit.js';

const phone = { width: 360, height: 740 };
const DIRECT = 'Picture and sound, direct way (UDP)';

let demo: Demo;
let browser: Browser;

test.beforeAll(async () => {
  demo = await startDemo();
  browser = await launch();
});

test.afterAll(async () => {
  await browser?.close();
  await demo?.stop();
});

test('all is well, and the clinic looks it up by its code', async () => {
  test.setTimeout(240_000);
  const { page, complaints } = await openPage(browser, `${demo.url}/check?clinic=demo`, phone);
  await expectSound(page, 'before the check');
  await runCheck(page);
  for (const name of ['Browser', 'Camera', 'Microphone', 'Connection to the clinic’s server', DIRECT]) {
    await expect(finding(page, name)).toContainText('Works');
  }
  await expect(finding(page, 'Picture and sound, direct way (TCP)')).toContainText('Works');
  // Whether this machine has time for a good picture or not: something went up and came back.
  await expect(finding(page, 'Quality of your connection')).toContainText('Works');
  const carried = await page.locator('.measured dd').allInnerTexts();
  expect(carried.filter((text) => text.endsWith('Mbit/s')).map(Number.parseFloat).every((rate) => rate > 0)).toBe(true);
  await button(page, 'Play a test sound').click();
  await button(page, 'No').click();
  await expect(finding(page, 'Sound')).toContainText('You did not hear the test sound.');
  await button(page, 'Yes').click();
  await expect(finding(page, 'Sound')).toContainText('Works');
  await expectSound(page, 'after the check');
  await button(page, 'Get a code for your clinic').click();
  const code = (await page.locator('.check-code').innerText()).trim();
  expect(code).toMatch(/^[CDFHJKMNPQRTVWXY3479]{4} [CDFHJKMNPQRTVWXY3479]{4}$/);
  await expectSound(page, 'with the code');
  expect(complaints).toEqual([]);

  const { page: doctor } = await openPage(browser, demo.doctor_link, phone);
  await button(doctor, 'Look up a patient’s connection check').click();
  await doctor.getByLabel('The code that the patient tells you').fill('CCCC 3333');
  await button(doctor, 'Look up').last().click();
  await expect(doctor.getByText('There is no check with this code.')).toBeVisible();
  await doctor.getByLabel('The code that the patient tells you').fill(code.toLowerCase());
  await button(doctor, 'Look up').last().click();
  await expect(finding(doctor, DIRECT)).toContainText('Works');
  await expect(doctor.locator('.found-check .hint').first()).toContainText(/Checked .*Chrome .* on Linux/);
  await expectSound(doctor, 'the look-up');
  // The room is closed with the report: nobody stays in it.
  await expect.poll(() => metric(demo, 'bedside_participants')).toBe(0);
});

test('a camera that is refused is told, and the rest is checked', async () => {
  test.setTimeout(180_000);
  const { page } = await openPage(browser, `${demo.url}/check`, phone, (opened) =>
    opened.addInitScript(() => {
      const native = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
      navigator.mediaDevices.getUserMedia = async (wanted) => {
        if (wanted?.video) throw new DOMException('refused', 'NotAllowedError');
        return native(wanted);
      };
    }),
  );
  await runCheck(page);
  await expect(finding(page, 'Camera')).toContainText('This page may not use your camera.');
  await expect(finding(page, 'Microphone')).toContainText('Works');
  await expect(finding(page, DIRECT)).toContainText('Works');
  await expectSound(page, 'with a refused camera');
});

test('a server that takes no checks says so, and one that is away', async () => {
  const other = await startDemo({ env: { BEDSIDE_CHECKS__ENABLED: 'false' } });
  try {
    const { page } = await openPage(browser, `${other.url}/check`, phone);
    await runCheck(page);
    await expect(finding(page, 'Connection to the clinic’s server')).toContainText('Not offered here');
    await expect(button(page, 'Get a code for your clinic')).toHaveCount(0);
    await other.stop();
    await button(page, 'Check again').click();
    await expect(page.getByText('The clinic’s server could not be reached.')).toBeVisible();
  } finally {
    await other.stop();
  }
});

test('a browser that keeps pages from the local network is told of, and so is why', async () => {
  test.setTimeout(180_000);
  // The page counts as a public one, and the server's media is on this machine.
  const strict = await launch({
    args: [
      `--ip-address-space-overrides=127.0.0.1:${new URL(demo.url).port}=public`,
      '--enable-features=LocalNetworkAccessChecks,LocalNetworkAccessChecksWebRTC',
    ],
  });
  try {
    const { page } = await openPage(strict, `${demo.url}/check`, phone);
    await runCheck(page);
    await expect(finding(page, 'Connection to the clinic’s server')).toContainText('Works');
    await expect(finding(page, DIRECT)).toContainText('Does not work');
    await expect(finding(page, 'Local network')).toContainText('Choose “Allow”');
    await expectSound(page, 'with a closed local network');
    // A call that does not come says why, too.
    const { page: patient } = await openPage(strict, demo.patient_link, phone);
    const { page: doctor } = await openPage(browser, demo.doctor_link);
    const me = await nameOf(patient);
    await enterWaitingRoom(patient);
    await admit(doctor, me);
    await expect(patient.getByText('Your browser will ask whether this page may connect')).toBeVisible({ timeout: 40_000 });
  } finally {
    await strict.close();
  }
});

test('the relay is tried by each way that it offers', async () => {
  test.setTimeout(180_000);
  const relays = await startDemo({ args: ['--tls-port', '0'] });
  const trusting = await launch({ args: [`--ignore-certificate-errors-spki-list=${relays.spki_sha256}`] });
  try {
    const { page } = await openPage(trusting, `${relays.url}/check`, phone);
    await runCheck(page);
    for (const way of ['UDP', 'TCP', 'TLS']) {
      await expect(finding(page, `Picture and sound, relay (${way})`)).toContainText('Works');
    }
    await button(page, 'Get a code for your clinic').click();
    await expect(page.locator('.check-code')).toBeVisible();
  } finally {
    await trusting.close();
    await relays.stop();
  }
});
