// Firefox ESR, headless, driven over Marionette (its own remote protocol: length-prefixed JSON over TCP).
import { spawn, type ChildProcess } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import type { Evaluates } from './media.js';

const preferences: Record<string, string | number | boolean> = {
  'app.update.enabled': false,
  'browser.newtabpage.enabled': false,
  'browser.safebrowsing.downloads.remote.enabled': false,
  'browser.shell.checkDefaultBrowser': false,
  'datareporting.policy.dataSubmissionEnabled': false,
  'extensions.update.enabled': false,
  'media.autoplay.blocking_policy': 0,
  'media.autoplay.default': 0,
  'media.gmp-manager.updateEnabled': false,
  'media.navigator.permission.disabled': true,
  'media.navigator.streams.fake': true,
  'media.peerconnection.ice.obfuscate_host_addresses': false,
  'network.captive-portal-service.enabled': false,
  'network.connectivity-service.enabled': false,
  'network.trr.mode': 5,
  'services.settings.server': 'http://127.0.0.1:9/',
  'toolkit.telemetry.enabled': false,
};

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

export class Firefox implements Evaluates {
  private buffer = Buffer.alloc(0);
  private answers = new Map<number, (message: unknown[]) => void>();
  private next = 1;

  private constructor(
    private process: ChildProcess,
    private socket: net.Socket,
    private profile: string,
  ) {
    socket.on('data', (bytes) => this.read(bytes));
  }

  static async launch(port: number): Promise<Firefox> {
    const profile = fs.mkdtempSync(path.join(os.tmpdir(), 'bedside-firefox-'));
    const lines = Object.entries({ ...preferences, 'marionette.port': port }).map(
      ([name, value]) => `user_pref(${JSON.stringify(name)}, ${JSON.stringify(value)});`,
    );
    fs.writeFileSync(path.join(profile, 'user.js'), lines.join('\n'));
    const args = ['--headless', '--marionette', '--remote-allow-system-access', '--no-remote', '--profile', profile, 'about:blank'];
    const child = spawn('firefox-esr', args, { stdio: 'ignore', env: { ...process.env, HOME: profile } });
    const browser = new Firefox(child, await connect(port), profile);
    await browser.command('WebDriver:NewSession', { capabilities: {} });
    await browser.command('WebDriver:SetTimeouts', { script: 60_000 });
    return browser;
  }

  /** Trusts an authority, given as PEM. */
  async trust(pem: string): Promise<void> {
    const script = `
      const certificates = Cc['@mozilla.org/security/x509certdb;1'].getService(Ci.nsIX509CertDB);
      certificates.addCertFromBase64(arguments[0], 'C,C,C');`;
    const args = [pem.replace(/-----[A-Z ]+-----|\s/g, '')];
    await this.command('Marionette:SetContext', { value: 'chrome' });
    await this.command('WebDriver:ExecuteScript', { script, args });
    await this.command('Marionette:SetContext', { value: 'content' });
  }

  async goto(url: string): Promise<void> {
    await this.command('WebDriver:Navigate', { url });
  }

  /** Runs a self-contained function in the page and gives its JSON-able result. */
  async evaluate<R, A>(fn: (arg: A) => R | Promise<R>, arg: A): Promise<R> {
    const script = `
      const [source, arg, done] = arguments;
      const page = window.wrappedJSObject ?? window;
      page.__result = undefined;
      page.__arg = arg;
      page.eval('Promise.resolve().then(() => (' + source + ')(JSON.parse(window.__arg).arg)).then(' +
        '(value) => { window.__result = JSON.stringify({ value }); },' +
        '(error) => { window.__result = JSON.stringify({ error: String(error && error.message || error) }); })');
      const timer = setInterval(() => {
        if (page.__result === undefined) return;
        clearInterval(timer);
        done(String(page.__result));
      }, 10);`;
    const args = [fn.toString(), JSON.stringify({ arg })];
    const answer = await this.command('WebDriver:ExecuteAsyncScript', { script, args, sandbox: null });
    const { value, error } = JSON.parse((answer as { value: string }).value);
    if (error) throw new Error(error);
    return value;
  }

  async close(): Promise<void> {
    const gone = new Promise((resolve) => this.process.once('exit', resolve));
    this.socket.destroy();
    this.process.kill();
    await Promise.race([gone, sleep(5000)]);
    fs.rmSync(this.profile, { recursive: true, force: true, maxRetries: 5 });
  }

  private command(name: string, parameters: object): Promise<unknown> {
    const id = this.next++;
    const text = JSON.stringify([0, id, name, parameters]);
    this.socket.write(`${Buffer.byteLength(text)}:${text}`);
    return new Promise((resolve, reject) => {
      this.answers.set(id, ([, , error, result]) => {
        if (error) reject(new Error((error as { message: string }).message));
        else resolve(result);
      });
    });
  }

  private read(bytes: Buffer): void {
    this.buffer = Buffer.concat([this.buffer, bytes]);
    for (;;) {
      const colon = this.buffer.indexOf(':');
      const end = colon + 1 + Number(this.buffer.subarray(0, colon));
      if (colon < 0 || this.buffer.length < end) return;
      const message = JSON.parse(this.buffer.subarray(colon + 1, end).toString());
      this.buffer = this.buffer.subarray(end);
      if (Array.isArray(message)) this.answers.get(message[1] as number)?.(message);
    }
  }
}

async function connect(port: number): Promise<net.Socket> {
  for (let attempt = 0; attempt < 300; attempt++) {
    const socket = await new Promise<net.Socket | null>((resolve) => {
      const candidate = net.connect(port, '127.0.0.1', () => resolve(candidate));
      candidate.once('error', () => resolve(null));
    });
    if (socket) return socket;
    await sleep(200);
  }
  throw new Error('Firefox did not open its remote port within 60 s');
}
