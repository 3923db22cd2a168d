// Serves a page with foreign code (livekit-client, or STOMP's clients) from its own origin.
import http from 'node:http';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { AddressInfo } from 'node:net';
import { build } from 'esbuild';
import type { Browser, Page } from '@playwright/test';
import { watchPeers } from './chromium.js';

export interface SdkSite {
  url: string;
  close(): void;
}

export async function serveSdkPage(host = '127.0.0.1', name = 'sdk-page'): Promise<SdkSite> {
  const folder = path.resolve(import.meta.dirname, '..', name);
  const bundle = await build({
    entryPoints: [path.join(folder, fs.existsSync(path.join(folder, 'page.tsx')) ? 'page.tsx' : 'page.ts')],
    bundle: true,
    format: 'esm',
    jsx: 'automatic',
    // sockjs-client looks for Node's global object, React for the kind of build.
    define: { global: 'globalThis', 'process.env.NODE_ENV': '"production"' },
    write: false,
    logLevel: 'error',
  });
  const script = bundle.outputFiles[0]!.contents;
  const html = fs.readFileSync(path.join(folder, 'index.html'));
  const worker = fs.readFileSync(fileURLToPath(import.meta.resolve('livekit-client/e2ee-worker')));
  const scripts: Record<string, Uint8Array> = { '/page.js': script, '/e2ee-worker.js': worker };
  const server = http.createServer((request, response) => {
    const code = scripts[request.url ?? ''];
    response.setHeader('content-type', code ? 'text/javascript' : 'text/html');
    response.end(code ?? html);
  });
  await new Promise<void>((resolve) => server.listen(0, host, resolve));
  const { port } = server.address() as AddressInfo;
  return { url: `http://${host}:${port}/`, close: () => void server.close() };
}

/** Opens the page in a browser of its own. */
export async function openSdkPage(browser: Browser, site: SdkSite, init?: (page: Page) => Promise<void>): Promise<Page> {
  const page = await (await browser.newContext()).newPage();
  await watchPeers(page);
  await init?.(page);
  await page.goto(site.url);
  await page.waitForFunction(() => document.title === 'ready');
  return page;
}
