// The page of a connection check, as the person who uses it sees it.
import { expect, type Locator, type Page } from '@playwright/test';
import { button } from './visit.js';

/** Begins the check and waits for its end. */
export async function runCheck(page: Page): Promise<void> {
  await button(page, 'Begin the check').click();
  // Each way that is blocked takes its time before it is given up.
  await expect(page.getByRole('heading', { name: 'Your check is done' })).toBeVisible({ timeout: 110_000 });
}

/** The line of one finding. */
export function finding(page: Page, name: string): Locator {
  return page.locator('.finding', { has: page.locator('strong', { hasText: new RegExp(`^${escaped(name)}$`) }) });
}

const escaped = (text: string) => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
