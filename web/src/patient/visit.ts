// The patient's visit as a machine: link → check → waiting room → call → end.
//
// Pure: the controller performs the effects and reports what happened as events.

import type { ProblemKind } from '../shared/api';
import type { RoomAccess } from '../shared/types';

export type Visit =
  | { at: 'opening' }
  | { at: 'refused'; kind: ProblemKind }
  | { at: 'check'; entering: boolean; problem: ProblemKind | null }
  | { at: 'waiting'; position: number; admitted: boolean; sentBack: boolean }
  | { at: 'call'; access: RoomAccess }
  | { at: 'left'; replaced: boolean }
  | { at: 'ended' };

export type VisitEvent =
  | { type: 'OPENED' }
  | { type: 'REFUSED'; kind: ProblemKind }
  | { type: 'ENTER' }
  | { type: 'ENTER_FAILED'; kind: ProblemKind }
  | { type: 'WAIT'; position: number }
  | { type: 'ADMITTED' }
  | { type: 'ROOM'; access: RoomAccess }
  | { type: 'SENT_BACK' }
  | { type: 'LEFT'; replaced: boolean }
  | { type: 'OVER' };

export const START: Visit = { at: 'opening' };

export function step(visit: Visit, event: VisitEvent): Visit {
  // The end is final: late answers and frames of a finished consultation change nothing.
  if (visit.at === 'ended') return visit;
  switch (event.type) {
    case 'OPENED':
      return visit.at === 'opening' || visit.at === 'refused' || visit.at === 'left'
        ? { at: 'check', entering: false, problem: null }
        : visit;
    case 'REFUSED':
      return { at: 'refused', kind: event.kind };
    case 'ENTER':
      return visit.at === 'check' ? { at: 'check', entering: true, problem: kept(visit) } : visit;
    case 'ENTER_FAILED':
      return visit.at === 'check' ? { at: 'check', entering: false, problem: event.kind } : visit;
    case 'WAIT':
      return wait(visit, event.position);
    case 'ADMITTED':
      return visit.at === 'waiting' ? { ...visit, admitted: true } : visit;
    case 'ROOM':
      return enterRoom(visit, event.access);
    case 'SENT_BACK':
      return visit.at === 'call' || visit.at === 'waiting'
        ? { at: 'waiting', position: 1, admitted: false, sentBack: true }
        : visit;
    case 'LEFT':
      return { at: 'left', replaced: event.replaced };
    case 'OVER':
      return { at: 'ended' };
  }
}

// While a payment is looked for again and again, its words stay as they are.
function kept(visit: Extract<Visit, { at: 'check' }>): ProblemKind | null {
  return visit.problem === 'unpaid' ? 'unpaid' : null;
}

function wait(visit: Visit, position: number): Visit {
  switch (visit.at) {
    case 'check':
      return visit.entering ? { at: 'waiting', position, admitted: false, sentBack: false } : visit;
    case 'waiting':
      return { ...visit, position, admitted: false };
    default:
      return visit;
  }
}

// A room is entered from where it was asked for; somebody who left meanwhile is not pulled back.
function enterRoom(visit: Visit, access: RoomAccess): Visit {
  return visit.at === 'waiting' || (visit.at === 'check' && visit.entering)
    ? { at: 'call', access }
    : visit;
}
