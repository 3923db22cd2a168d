// The headless participant beside a browser: each must see, hear and reach the other.
import { spawn } from 'node:child_process';
import path from 'node:path';
import readline from 'node:readline';
import { test, expect } from '@playwright/test';
import { startDemo, roomToken, binary } from './support/demo.js';
import { launch } from './support/chromium.js';
import { serveSdkPage, openSdkPage } from './support/sdk.js';
import { expectMedia, received } from './support/media.js';

/** `cargo test` builds it beside the server. */
const meet = path.join(path.dirname(binary), 'examples/meet');

test('a headless participant and a browser meet, and the participant resumes', async () => {
  const demo = await startDemo();
  const site = await serveSdkPage();
  const browser = await launch();
  try {
    const url = demo.url.replace('http', 'ws');
    const page = await openSdkPage(browser, site);
    const token = await roomToken('meeting', 'browser');
    await page.evaluate(([u, t]) => window.bench.join(u, t), [url, token] as const);
    await page.evaluate(() => window.bench.publish());

    const child = spawn(meet, [url, '20', await roomToken('meeting', 'headless')]);
    const lines: string[] = [];
    readline.createInterface({ input: child.stdout }).on('line', (line) => lines.push(line));
    const ended = new Promise<number | null>((resolve) => child.once('exit', resolve));

    const first = await expectMedia(page, { videos: 1, audio: true });
    expect([first.width, first.height]).toEqual([640, 360]);
    // It says hello on both channels and loses its signal connection; media goes on.
    await page.waitForFunction(() => window.bench.data.length === 2, undefined, { timeout: 15_000 });
    const data = await page.evaluate(() => window.bench.data);
    expect(data.map((d) => [d.text, d.from, d.reliable]).sort()).toEqual([
      ['hello', 'headless', false],
      ['hello', 'headless', true],
    ]);
    await expect.poll(() => lines.includes('0: Resumed'), { timeout: 10_000 }).toBe(true);
    const before = await received(page);
    await expectMedia(page, { videos: 1, audio: true });
    expect((await received(page)).frames).toBeGreaterThan(before.frames + 10);

    expect(await ended).toBe(0);
    const report = lines.join('\n');
    const video = /received ReceivedTrack \{.*kind: Video.* frames: (\d+), keyframes: (\d+), lost: (\d+)/.exec(report);
    const audio = /received ReceivedTrack \{.*kind: Audio.* packets: (\d+)/.exec(report);
    expect(video, report).not.toBeNull();
    expect(Number(video![1]), report).toBeGreaterThan(100);
    expect(Number(video![2]), report).toBeGreaterThan(0);
    expect(Number(video![3]), report).toBe(0);
    expect(Number(audio?.[1]), report).toBeGreaterThan(300);
    expect(report).toMatch(/sent SentTrack \{.*kind: Video.*keyframe_requests: [1-9]/);
    expect(report).toContain('1 resumes, 0 rejoins');
    await page.waitForFunction(() => window.bench.room!.remoteParticipants.size === 0);
  } catch (error) {
    console.log(demo.log.slice(-40).join('\n'));
    throw error;
  } finally {
    await browser.close();
    site.close();
    await demo.stop();
  }
});
