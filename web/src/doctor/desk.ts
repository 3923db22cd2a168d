// The doctor's page as a machine: link → the day's list → call → back to the list.
//
// Pure: the controller performs the effects and reports what happened as events.

import type { ProblemKind } from '../shared/api';
import type { Session } from '../shared/types';
import { isOver } from '../shared/types';

export type Desk =
  | { at: 'opening' }
  | { at: 'refused'; kind: ProblemKind }
  | { at: 'list'; entering: string | null; problem: ProblemKind | null; replaced: boolean }
  | { at: 'call'; sessionId: string }
  | { at: 'finished'; sessionId: string };

export type DeskEvent =
  | { type: 'OPENED' }
  | { type: 'REFUSED'; kind: ProblemKind }
  | { type: 'ENTER'; sessionId: string }
  | { type: 'ENTER_FAILED'; kind: ProblemKind }
  | { type: 'ENTERED' }
  | { type: 'LEFT'; replaced: boolean }
  | { type: 'FINISHED' }
  | { type: 'TO_LIST' };

export const START: Desk = { at: 'opening' };

const LIST: Extract<Desk, { at: 'list' }> = {
  at: 'list',
  entering: null,
  problem: null,
  replaced: false,
};

export function step(desk: Desk, event: DeskEvent): Desk {
  switch (event.type) {
    case 'OPENED':
      return LIST;
    case 'REFUSED':
      return { at: 'refused', kind: event.kind };
    case 'ENTER':
      return desk.at === 'list' && desk.entering === null
        ? { ...desk, entering: event.sessionId, problem: null, replaced: false }
        : desk;
    case 'ENTER_FAILED':
      return desk.at === 'list' ? { ...desk, entering: null, problem: event.kind } : desk;
    case 'ENTERED':
      return desk.at === 'list' && desk.entering !== null
        ? { at: 'call', sessionId: desk.entering }
        : desk;
    case 'LEFT':
      return desk.at === 'call' ? { ...LIST, replaced: event.replaced } : desk;
    case 'FINISHED':
      return desk.at === 'call' ? { at: 'finished', sessionId: desk.sessionId } : desk;
    case 'TO_LIST':
      return desk.at === 'finished' ? LIST : desk;
  }
}

/** The day in the order in which it matters: who waits first, then by time, what is over last. */
export function inOrder(sessions: Iterable<Session>): Session[] {
  const rank = (s: Session) => (isOver(s.status) ? 2 : s.waiting.length > 0 ? 0 : 1);
  const longest = (s: Session) => Math.min(...s.waiting.map((w) => Date.parse(w.since)));
  const planned = (s: Session) => {
    const at = Date.parse(s.scheduledStartTime ?? '');
    return Number.isNaN(at) ? Number.POSITIVE_INFINITY : at;
  };
  return [...sessions].sort((a, b) => {
    const byRank = rank(a) - rank(b);
    if (byRank !== 0) return byRank;
    if (rank(a) === 0 && longest(a) !== longest(b)) return longest(a) - longest(b);
    if (planned(a) !== planned(b)) return planned(a) - planned(b);
    return a.sessionId < b.sessionId ? -1 : 1;
  });
}

/** One word or two about a session for the list. */
export function statusWords(session: Session): string {
  if (session.waiting.length > 0) return 'Patient is waiting';
  switch (session.status.toUpperCase()) {
    case 'IN_PROGRESS':
      return 'In progress';
    case 'PAUSED':
      return 'Paused';
    case 'COMPLETED':
    case 'ENDED':
      return 'Completed';
    case 'CANCELLED':
      return 'Cancelled';
    case 'NO_SHOW':
      return 'Patient did not come';
    case 'FAILED':
      return 'Failed';
    case 'WAITING':
      return 'Open';
    default:
      return 'Scheduled';
  }
}
