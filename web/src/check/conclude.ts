// From what was tried to findings. Pure: what a check says does not depend on how it was run.

import type { DeviceState } from '../shared/media/preview';
import type { Finding, Reason, Way } from '../shared/checks/report';
import type { LocalNetwork } from '../shared/local-network';
import type { Tried } from './probe';

/** The finding of one way; `secure` = the page itself came by https. */
export function wayFinding(way: Way, tried: Tried | null, secure: boolean): Finding {
  if (tried === null) return { subject: way, outcome: 'skipped', reason: 'not_offered' };
  if (tried.media !== null) return { subject: way, outcome: 'ok', ms: tried.media };
  // Pages and their WebSocket came over TLS, and other TLS to the same place does not: who opens
  // encrypted connections lets through only what it understands.
  const intercepted = way === 'relay_tls' && secure && tried.signaling !== null;
  return { subject: way, outcome: 'failed', reason: intercepted ? 'intercepted' : 'blocked' };
}

/** The finding of the WebSocket; the server was reached by HTTP before it. */
export function signalingFinding(tried: Tried): Finding {
  return tried.signaling === null
    ? { subject: 'signaling', outcome: 'failed', reason: 'intercepted' }
    : { subject: 'signaling', outcome: 'ok', ms: tried.signaling };
}

/** Said only where it matters: the server's media is local, or nothing else explains the silence. */
export function localNetworkFinding(
  state: LocalNetwork,
  serverIsLocal: boolean,
  directWorks: boolean,
): Finding | null {
  const subject = 'local_network';
  if (directWorks) return serverIsLocal && state === 'granted' ? { subject, outcome: 'ok' } : null;
  if (state === 'denied') return { subject, outcome: 'failed', reason: 'denied' };
  if (state === 'prompt' && serverIsLocal) return { subject, outcome: 'failed', reason: 'prompt' };
  return null;
}

export function deviceFinding(
  device: 'camera' | 'microphone',
  state: DeviceState,
  heard: boolean,
): Finding {
  switch (state.is) {
    case 'on':
      return device === 'microphone' && !heard
        ? { subject: device, outcome: 'warning', reason: 'silent' }
        : { subject: device, outcome: 'ok' };
    case 'problem':
      return { subject: device, outcome: 'failed', reason: state.problem satisfies Reason };
    case 'off':
    case 'asking':
      return { subject: device, outcome: 'skipped' };
  }
}

/** What the person says of the test sound; null = nothing yet. */
export function speakerFinding(heard: boolean | null): Finding {
  const subject = 'speaker';
  if (heard === null) return { subject, outcome: 'skipped' };
  return heard ? { subject, outcome: 'ok' } : { subject, outcome: 'failed', reason: 'silent' };
}
