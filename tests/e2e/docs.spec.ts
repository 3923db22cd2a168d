// The API's description for people: Swagger UI at /docs, under our content security policy, from our
// own origin only, and able to make a call.
import { test, expect, type Browser } from '@playwright/test';
import { launch } from './support/chromium.js';
import { startDemo, type Demo } from './support/demo.js';

let demo: Demo;
let browser: Browser;

test.beforeAll(async () => {
  demo = await startDemo({ bot: false });
  browser = await launch();
});

test.afterAll(async () => {
  await browser?.close();
  await demo?.stop();
});

test('the description opens under the policy, and calls the API', async () => {
  const page = await browser.newPage();
  const faults: string[] = [];
  const foreign: string[] = [];
  page.on('console', (message) => {
    if (message.type() === 'error') faults.push(message.text());
  });
  page.on('pageerror', (error) => faults.push(error.message));
  page.on('request', (request) => {
    const url = request.url();
    if (!url.startsWith(demo.url) && !url.startsWith('data:')) foreign.push(url);
  });
  const answer = await page.goto(`${demo.url}/docs`);
  expect(answer?.url()).toBe(`${demo.url}/docs/`);
  const policy = answer?.headers()['content-security-policy'] ?? '';
  expect(policy).toContain("script-src 'self'");
  expect(policy).not.toContain('unsafe');

  await expect(page.getByRole('heading', { name: /Bedside consultation API/ })).toBeVisible();
  const operation = page.locator('#operations-health-getHealth');
  await operation.getByRole('button').first().click();
  await operation.getByRole('button', { name: 'Try it out' }).click();
  await operation.getByRole('button', { name: 'Execute' }).click();
  await expect(operation.locator('.live-responses-table')).toContainText('"status": "healthy"');
  // A padlock: operations that need a token say so.
  await expect(page.getByRole('button', { name: 'Authorize' }).first()).toBeVisible();

  expect(faults).toEqual([]);
  expect(foreign).toEqual([]);
});
