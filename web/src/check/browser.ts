// Which browser this is, and whether it can make a call.

import type { BrowserFacts, Finding } from '../shared/checks/report';

/** Reads the user agent's text. Only a name of a short list and a number come out of it. */
export function browserFacts(agent: string): BrowserFacts {
  const match = (pattern: RegExp) => Number(pattern.exec(agent)?.[1] ?? 0);
  const versions: [BrowserFacts['name'], number][] = [
    ['edge', match(/Edg(?:e|A|iOS)?\/(\d{1,4})/)],
    ['samsung', match(/SamsungBrowser\/(\d{1,4})/)],
    ['other', match(/(?:OPR|Opera|YaBrowser|Vivaldi)\/(\d{1,4})/)],
    ['firefox', match(/(?:Firefox|FxiOS)\/(\d{1,4})/)],
    ['chrome', match(/(?:Chrome|CriOS)\/(\d{1,4})/)],
    ['safari', match(/Version\/(\d{1,4}).*Safari\//)],
  ];
  const found = versions.find(([, version]) => version > 0) ?? (['other', 0] as const);
  return { name: found[0], version: found[1], system: systemOf(agent) };
}

function systemOf(agent: string): BrowserFacts['system'] {
  if (/iPhone|iPad|iPod/.test(agent)) return 'ios';
  if (/Android/.test(agent)) return 'android';
  if (/Windows/.test(agent)) return 'windows';
  if (/Macintosh|Mac OS X/.test(agent)) return 'macos';
  if (/Linux|CrOS|X11/.test(agent)) return 'linux';
  return 'other';
}

/** The oldest versions that the call's code runs in. */
const OLDEST: Record<BrowserFacts['name'], number> = {
  chrome: 110,
  edge: 110,
  firefox: 115,
  safari: 16,
  samsung: 20,
  other: 0,
};

/** What of the platform a call needs; taken from the window, replaced in tests. */
export interface Platform {
  secure: boolean;
  peers: boolean;
  sockets: boolean;
  devices: boolean;
}

export function platform(): Platform {
  return {
    secure: window.isSecureContext,
    peers: typeof RTCPeerConnection === 'function',
    sockets: typeof WebSocket === 'function',
    devices: typeof navigator.mediaDevices?.getUserMedia === 'function',
  };
}

export function browserFinding(browser: BrowserFacts, has: Platform): Finding {
  const subject = 'browser';
  if (!has.secure) return { subject, outcome: 'failed', reason: 'insecure' };
  if (!has.peers || !has.sockets || !has.devices) {
    return { subject, outcome: 'failed', reason: 'unsupported' };
  }
  const old = browser.version > 0 && browser.version < OLDEST[browser.name];
  return old ? { subject, outcome: 'warning', reason: 'old' } : { subject, outcome: 'ok' };
}
