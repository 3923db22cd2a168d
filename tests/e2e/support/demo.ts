// Starts `bedside demo` on free ports and stops it again.
import { spawn, execFile, type ChildProcess } from 'node:child_process';
import path from 'node:path';
import readline from 'node:readline';
import { promisify } from 'node:util';

const root = path.resolve(import.meta.dirname, '../../..');

/** The binary under test; `scripts/test` builds it. */
export const binary = process.env.E2E_BINARY ?? path.join(root, 'target/debug/bedside');

export interface Demo {
  url: string;
  doctor_link: string;
  patient_link: string;
  api_key: string;
  api_secret: string;
  api_token: string;
  turn_urls: string[];
  /** With `--tls-port`: the address with TLS, its authority's certificate, and its key's fingerprint. */
  tls_url?: string;
  ca_file?: string;
  spki_sha256?: string;
  process: ChildProcess;
  /** What the server logged, for the message of a failing test. */
  log: string[];
  stop(): Promise<void>;
}

export interface DemoOptions {
  /** The synthetic patient joins too. */
  bot?: boolean;
  /** With relays. Without them a test knows which way media takes; `--tls-port` asks for them too. */
  turn?: boolean;
  /** More arguments for `bedside demo`. */
  args?: string[];
  env?: Record<string, string>;
  /** A command to run it under, e.g. `['ip', 'netns', 'exec', 'name']`. */
  under?: string[];
}

export async function startDemo(options: DemoOptions = {}): Promise<Demo> {
  const args = ['demo', '--json', '--port', '0', '--media-port', '0', ...(options.args ?? [])];
  if (!options.bot) args.push('--no-bot');
  if (!options.turn && !args.includes('--tls-port')) args.push('--turn-port', '0');
  const [command = binary, ...rest] = [...(options.under ?? []), binary, ...args];
  const child = spawn(command, rest, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...options.env },
  });
  const log: string[] = [];
  readline.createInterface({ input: child.stderr! }).on('line', (line) => log.push(line));
  const lines = readline.createInterface({ input: child.stdout! });
  const first = await new Promise<string>((resolve, reject) => {
    lines.once('line', resolve);
    child.once('error', reject);
    child.once('exit', (code) =>
      reject(new Error(`bedside demo ended with ${code}:\n${log.join('\n')}`)),
    );
  });
  const stop = async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGTERM');
    const late = setTimeout(() => child.kill('SIGKILL'), 10_000);
    await gone;
    clearTimeout(late);
  };
  return { ...JSON.parse(first), process: child, log, stop };
}

/** Links of both people to a consultation of its own, with a doctor and a patient of its own. */
export async function newConsultation(demo: Demo, mode: 'AUDIO' | 'VIDEO'): Promise<{ patient: string; doctor: string }> {
  const post = async (path: string, body: object) => {
    const answer = await fetch(`${demo.url}/api/v1/consultations/sessions${path}`, {
      method: 'POST',
      headers: { authorization: `Bearer ${demo.api_token}`, 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
    if (!answer.ok) throw new Error(`${answer.status} ${await answer.text()}`);
    return (await answer.json()) as Record<string, string>;
  };
  const own = crypto.randomUUID().slice(0, 8);
  const { sessionId } = await post('', {
    appointmentId: crypto.randomUUID(),
    doctorId: `doctor-${own}`,
    doctorName: 'Dr. Voice',
    patientId: `patient-${own}`,
    patientName: 'Mr. Heard',
    consultationMode: mode,
    scheduledStartTime: new Date().toISOString(),
    scheduledDurationMinutes: 30,
  });
  const link = async (userId: string, role: string) => (await post(`/${sessionId}/links`, { userId, role })).link!;
  return { patient: await link(`patient-${own}`, 'patient'), doctor: await link(`doctor-${own}`, 'doctor') };
}

/** A room token as an outside script would make it. */
export async function roomToken(room: string, identity: string): Promise<string> {
  const args = ['token', 'room', '--room', room, '--identity', identity];
  const { stdout } = await promisify(execFile)(binary, args);
  return stdout.trim();
}

/** Sum of all samples of one of the server's metrics. */
export async function metric(demo: Demo, name: string): Promise<number> {
  const text = await (await fetch(`${demo.url}/metrics`)).text();
  const lines = text.split('\n').filter((l) => l.startsWith(`${name} `) || l.startsWith(`${name}{`));
  if (lines.length === 0) throw new Error(`${name} is no metric`);
  return lines.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
}
