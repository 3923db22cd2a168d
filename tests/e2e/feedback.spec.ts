// After the call: what the patient says of it, and what it cost. And before it: the payment gate.
import { test, expect, type Browser } from '@playwright/test';
import { launch } from './support/chromium.js';
import { startDemo, type Demo } from './support/demo.js';
import { admit, button, enterWaitingRoom, nameOf, openPage } from './support/visit.js';

const phone = { width: 360, height: 740 };
const SESSIONS = '/api/v1/consultations/sessions';

let browsers: Browser[] = [];

test.beforeAll(async () => {
  browsers = [await launch(), await launch()];
});

test.afterAll(async () => {
  await Promise.all(browsers.map((b) => b.close()));
});

/** A call to the API in the name of the clinic. */
async function api(demo: Demo, method: string, path: string, body?: unknown) {
  const response = await fetch(demo.url + path, {
    method,
    headers: { authorization: `Bearer ${demo.api_token}`, 'content-type': 'application/json' },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  });
  return { status: response.status, body: await response.json() };
}

test('the patient says how it was, and the doctor sees what it cost', async () => {
  const demo = await startDemo();
  try {
    const list = await api(demo, 'GET', SESSIONS);
    const { sessionId, doctor: doctorOf } = list.body.items[0];
    const pricing = `/api/v1/consultations/pricing/${doctorOf.id}`;
    const price = { consultationMode: 'VIDEO', pricingType: 'PER_MINUTE', perMinuteRate: 100 };
    expect((await api(demo, 'PUT', pricing, price)).status).toBe(200);
    const { page: patient, complaints } = await openPage(browsers[0]!, demo.patient_link, phone);
    const { page: doctor } = await openPage(browsers[1]!, demo.doctor_link);
    const me = await nameOf(patient);
    await enterWaitingRoom(patient);
    await admit(doctor, me);
    await expect(button(patient, 'Leave')).toBeVisible();
    await button(doctor, 'End call').click();
    await expect(doctor.getByText('Charged: ₹500.00')).toBeVisible();

    await expect(patient.getByRole('heading', { name: 'How was your consultation?' })).toBeVisible();
    await button(patient, 'Send feedback').click();
    await expect(patient.getByRole('alert')).toHaveText('Please choose from one to five stars.');
    // By keyboard: one stop for the stars, arrows within them.
    await patient.getByRole('radio', { name: '4 stars, Good' }).first().focus();
    await patient.keyboard.press('Space');
    await patient.keyboard.press('ArrowRight');
    await expect(patient.getByRole('radio', { name: '5 stars, Very good' }).first()).toBeChecked();
    await expect(patient.getByRole('alert')).toHaveCount(0);
    await patient.getByText('Clear explanations').click();
    await patient.getByText('On-time').click();
    await patient.getByText('More details (optional)').click();
    const details = patient.locator('details');
    const sound = details.getByRole('group', { name: 'Sound' });
    await sound.locator('label').nth(2).click();
    const picture = details.getByRole('group', { name: 'Picture' });
    await picture.locator('label').nth(1).click();
    await patient.getByRole('textbox', { name: /In your own words/ }).fill('She took her time.');
    await patient.getByRole('radio', { name: 'Yes' }).check({ force: true });
    const wide = await patient.evaluate(() => document.documentElement.scrollWidth > window.innerWidth);
    expect(wide, 'the form is wider than the screen').toBe(false);
    await button(patient, 'Send feedback').click();
    await expect(patient.getByText('Thank you. Your feedback has been sent.')).toBeVisible();

    const given = await api(demo, 'GET', `${SESSIONS}/${sessionId}/feedback`);
    expect(given.body).toMatchObject({
      overallRating: 5,
      audioQuality: 3,
      videoQuality: 2,
      doctorBehaviour: null,
      feedbackTags: ['on-time', 'clear-explanations'],
      reviewText: 'She took her time.',
      wouldRecommend: true,
    });
    await patient.reload();
    await expect(patient.getByText('Thank you. Your feedback has been sent.')).toBeVisible();
    expect(complaints).toEqual([]);
  } finally {
    await demo.stop();
  }
});

test('who has not paid is told so, and comes in by itself when it is paid', async () => {
  const demo = await startDemo({ env: { BEDSIDE_PAYMENTS__REQUIRED: 'true' } });
  try {
    const appointment = { appointmentId: 'appointment-1', doctorId: 'doc', patientId: 'pat' };
    const body = { ...appointment, patientName: 'Ms. Lindqvist', consultationMode: 'VIDEO' };
    const made = await api(demo, 'POST', SESSIONS, body);
    expect(made.status).toBe(201);
    const links = `${SESSIONS}/${made.body.sessionId}/links`;
    const link = await api(demo, 'POST', links, { userId: 'pat', role: 'patient' });
    const { page: patient } = await openPage(browsers[0]!, link.body.link, phone);
    await button(patient, /^Join/).click();
    await expect(patient.getByRole('alert')).toContainText('Your payment is not confirmed yet.');
    const payment = '/api/v1/consultations/appointments/appointment-1/payment';
    expect((await api(demo, 'POST', payment, { paymentId: 'pay-1' })).status).toBe(200);
    const waiting = patient.getByRole('heading', { name: 'You are in the waiting room' });
    await expect(waiting).toBeVisible({ timeout: 20_000 });
  } finally {
    await demo.stop();
  }
});
