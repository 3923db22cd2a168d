// Debian's Chromium with fake devices, loopback media and nothing else reachable.
import { chromium, type Browser, type Page } from '@playwright/test';

export const flags = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--use-fake-device-for-media-stream',
  '--use-fake-ui-for-media-stream',
  '--allow-loopback-in-peer-connection',
  '--autoplay-policy=no-user-gesture-required',
  '--auto-accept-this-tab-capture',
  '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost',
];

export interface LaunchOptions {
  /** More flags. */
  args?: string[];
  /** A forward proxy for everything but media, loopback included. */
  proxy?: string;
  /** Started instead of Chromium, with its arguments. */
  executable?: string;
  /** More of the environment. */
  env?: Record<string, string>;
}

/** One browser per person, so that each has its own process, profile and timers. */
export async function launch(options: LaunchOptions = {}): Promise<Browser> {
  return chromium.launch({
    executablePath: options.executable ?? process.env.CHROMIUM ?? '/usr/bin/chromium',
    headless: true,
    ...(options.env ? { env: { ...(process.env as Record<string, string>), ...options.env } } : {}),
    args: [...flags, ...(options.args ?? [])],
    ...(options.proxy ? { proxy: { server: options.proxy, bypass: '<-loopback>' } } : {}),
  });
}

/** Lets a test read the statistics of every connection that the page makes. */
export async function watchPeers(page: Page): Promise<void> {
  await page.addInitScript(() => {
    const seen: RTCPeerConnection[] = [];
    (window as unknown as { peers: RTCPeerConnection[] }).peers = seen;
    const Native = window.RTCPeerConnection;
    window.RTCPeerConnection = class extends Native {
      constructor(...args: ConstructorParameters<typeof RTCPeerConnection>) {
        super(...args);
        seen.push(this);
      }
    };
  });
}
