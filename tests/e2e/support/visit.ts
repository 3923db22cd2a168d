// The patient's and the doctor's pages, as the people who use them see them.
import { expect, type Browser, type Page } from '@playwright/test';
import { watchPeers } from './chromium.js';

export interface Opened {
  page: Page;
  /** What the console complained about: a page must run without errors and within its policy. */
  complaints: string[];
}

/** Opens one of our pages in a browser profile of its own. */
export async function openPage(
  browser: Browser,
  link: string,
  size = { width: 1280, height: 800 },
  init?: (page: Page) => Promise<unknown>,
): Promise<Opened> {
  const page = await (await browser.newContext({ viewport: size, locale: 'en-GB' })).newPage();
  const complaints: string[] = [];
  page.on('pageerror', (error) => complaints.push(`error: ${error.message}`));
  page.on('console', (message) => {
    if (message.type() === 'error') complaints.push(message.text());
  });
  await watchPeers(page);
  await init?.(page);
  await page.goto(link);
  return { page, complaints };
}

export const button = (page: Page, name: string | RegExp) => page.getByRole('button', { name });

/** The name by which the check greets a patient. */
export async function nameOf(patient: Page): Promise<string> {
  const greeting = await patient.getByRole('heading', { name: /^Hello / }).innerText();
  return greeting.replace('Hello ', '');
}

/** The check is passed and the waiting room reached. */
export async function enterWaitingRoom(patient: Page): Promise<void> {
  await button(patient, /^Join/).click();
  await expect(patient.getByRole('heading', { name: 'You are in the waiting room' })).toBeVisible();
}

export async function admit(doctor: Page, patientName: string): Promise<void> {
  await button(doctor, `Admit ${patientName}`).click();
  await expect(button(doctor, 'End call')).toBeVisible();
}

export async function openChat(page: Page): Promise<void> {
  const toggle = page.getByRole('toolbar').getByRole('button', { name: /^Chat/ });
  if ((await toggle.getAttribute('aria-expanded')) !== 'true') await toggle.click();
  await expect(page.getByRole('log', { name: 'Messages' })).toBeVisible();
}

export async function say(page: Page, text: string): Promise<void> {
  await openChat(page);
  await page.getByRole('textbox', { name: 'Message' }).fill(text);
  await page.getByRole('textbox', { name: 'Message' }).press('Enter');
}

export async function expectMessage(page: Page, text: string): Promise<void> {
  await openChat(page);
  await expect(page.getByRole('log').getByText(text, { exact: true })).toBeVisible();
}

/** The words about the connection in the head of the call. */
export const linkState = (page: Page) => page.locator('header').getByRole('status');

/** How different the picture in a video is after `ms`: mean change per colour value, 0 to 255. */
export async function movement(page: Page, label: string, ms = 700): Promise<number> {
  return page.getByLabel(label, { exact: true }).evaluate(async (element, ms) => {
    const video = element as HTMLVideoElement;
    const canvas = document.createElement('canvas');
    canvas.width = 160;
    canvas.height = 90;
    const context = canvas.getContext('2d', { willReadFrequently: true });
    if (!context) return 0;
    const look = () => {
      context.drawImage(video, 0, 0, canvas.width, canvas.height);
      return context.getImageData(0, 0, canvas.width, canvas.height).data;
    };
    const before = look();
    await new Promise((resolve) => setTimeout(resolve, ms));
    const after = look();
    let sum = 0;
    for (let i = 0; i < before.length; i += 1) sum += Math.abs((after[i] ?? 0) - (before[i] ?? 0));
    return sum / before.length;
  }, ms);
}
