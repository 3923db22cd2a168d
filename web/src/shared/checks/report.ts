// What a connection check found, in the words that the server knows. Nothing of it says who it was.

export type Subject =
  | 'browser'
  | 'camera'
  | 'microphone'
  | 'speaker'
  | 'signaling'
  | 'udp'
  | 'tcp'
  | 'relay_udp'
  | 'relay_tcp'
  | 'relay_tls'
  | 'quality'
  | 'local_network';

export type Outcome = 'ok' | 'warning' | 'failed' | 'skipped';

export type Reason =
  | 'denied'
  | 'none'
  | 'busy'
  | 'insecure'
  | 'unsupported'
  | 'old'
  | 'blocked'
  | 'intercepted'
  | 'not_offered'
  | 'full'
  | 'silent'
  | 'lossy'
  | 'delayed'
  | 'uneven'
  | 'narrow'
  | 'prompt'
  | 'other';

export interface Finding {
  subject: Subject;
  outcome: Outcome;
  reason?: Reason;
  ms?: number;
}

export interface BrowserFacts {
  name: 'chrome' | 'edge' | 'firefox' | 'safari' | 'samsung' | 'other';
  version: number;
  system: 'windows' | 'macos' | 'ios' | 'android' | 'linux' | 'other';
}

export interface Measured {
  roundTripMs: number;
  jitterMs: number;
  lostUpPerMille: number;
  lostDownPerMille: number;
  upKbps: number;
  downKbps: number;
}

export interface CheckReport {
  browser: BrowserFacts;
  findings: Finding[];
  measured?: Measured;
}

/** A report as the clinic finds it. */
export interface StoredCheck {
  code: string;
  createdAt: string;
  expiresAt: string;
  report: CheckReport;
}

/** The ways that media can take, in the order in which they are tried. */
export const WAYS = ['udp', 'tcp', 'relay_udp', 'relay_tcp', 'relay_tls'] as const;

export type Way = (typeof WAYS)[number];

/** Eight characters read more easily as two groups. */
export function spelled(code: string): string {
  return `${code.slice(0, 4)} ${code.slice(4)}`;
}
