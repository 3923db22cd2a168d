// The state of a call in words: the most important thing first, one at a time.

import type { Session } from '../types';
import type { RemotePerson } from './model';
import type { Phase } from './phase';

export interface LinkFacts {
  phase: Phase;
  people: readonly RemotePerson[];
  weak: boolean;
  cutOff: boolean;
  session: Session;
  me: string;
  expected: string;
  /** Now, on this machine's clock. */
  seconds: number;
}

export interface LinkWords {
  text: string;
  tone: 'good' | 'warn' | 'bad';
  /** How long the trouble has lasted, where that is known. */
  seconds: number | null;
}

export function linkWords(facts: LinkFacts): LinkWords {
  const { phase } = facts;
  switch (phase.is) {
    case 'connecting':
      return { text: 'Connecting…', tone: 'warn', seconds: null };
    case 'reconnecting':
    case 'rejoining':
      return {
        text: 'Connection lost. Reconnecting…',
        tone: 'bad',
        seconds: Math.max(0, Math.round((facts.seconds - phase.since) / 1000)),
      };
    case 'failed':
      return { text: 'Not connected', tone: 'bad', seconds: null };
    case 'gone':
      return { text: 'Call ended', tone: 'warn', seconds: null };
    case 'connected':
      return connectedWords(facts);
  }
}

function connectedWords(facts: LinkFacts): LinkWords {
  if (facts.cutOff) return { text: 'Connection lost. Reconnecting…', tone: 'bad', seconds: null };
  const lost =
    facts.session.participants.find((p) => p.userId !== facts.me && p.status === 'reconnecting') ??
    facts.people.find((p) => p.stalled);
  if (lost) return { text: `${lost.name} is reconnecting…`, tone: 'warn', seconds: null };
  const paused = facts.people.find((p) => p.picturePaused);
  if (paused) {
    return { text: 'The picture is paused, the voice is safe', tone: 'warn', seconds: null };
  }
  if (facts.weak) return { text: 'Your connection is weak', tone: 'warn', seconds: null };
  const first = facts.people.at(0);
  const gone = facts.session.participants.find(
    (p) => p.userId !== facts.me && (p.connectionLost || p.status === 'connection_lost'),
  );
  if (!first && gone) {
    return { text: `${gone.name} lost the connection and can come back`, tone: 'bad', seconds: null };
  }
  if (!first) return { text: `Waiting for ${facts.expected}`, tone: 'warn', seconds: null };
  const weak = facts.people.find((p) => p.weak);
  if (weak) return { text: `${weak.name}’s connection is weak`, tone: 'warn', seconds: null };
  return { text: 'Connected', tone: 'good', seconds: null };
}
