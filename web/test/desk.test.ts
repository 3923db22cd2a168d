import { describe, expect, it } from 'vitest';
import { type Desk, type DeskEvent, inOrder, START, statusWords, step } from '../src/doctor/desk';
import { aSession } from './session';

const run = (...events: DeskEvent[]): Desk => events.reduce(step, START);

describe('the doctor’s desk', () => {
  it('opens one call at a time', () => {
    const entering = run({ type: 'OPENED' }, { type: 'ENTER', sessionId: 'a' });
    expect(entering).toMatchObject({ at: 'list', entering: 'a' });
    expect(step(entering, { type: 'ENTER', sessionId: 'b' })).toBe(entering);
    expect(step(entering, { type: 'ENTERED' })).toEqual({ at: 'call', sessionId: 'a' });
  });

  it('returns to the list with the reason when a call cannot be opened', () => {
    const failed = run(
      { type: 'OPENED' },
      { type: 'ENTER', sessionId: 'a' },
      { type: 'ENTER_FAILED', kind: 'offline' },
    );
    expect(failed).toMatchObject({ at: 'list', entering: null, problem: 'offline' });
  });

  it('tells leaving from ending', () => {
    const call = run({ type: 'OPENED' }, { type: 'ENTER', sessionId: 'a' }, { type: 'ENTERED' });
    expect(step(call, { type: 'LEFT', replaced: false }).at).toBe('list');
    expect(step(call, { type: 'FINISHED' })).toEqual({ at: 'finished', sessionId: 'a' });
    expect(step(run({ type: 'OPENED' }), { type: 'FINISHED' }).at).toBe('list');
  });
});

describe('the list', () => {
  const waiting = (since: string) => [{ userId: 'p', name: 'P', since, position: 1 }];

  it('puts who waits longest first and what is over last', () => {
    const sessions = [
      aSession({
        sessionId: 'over',
        status: 'COMPLETED',
        scheduledStartTime: '2026-01-05T07:00:00Z',
      }),
      aSession({ sessionId: 'later', scheduledStartTime: '2026-01-05T11:00:00Z' }),
      aSession({ sessionId: 'sooner', scheduledStartTime: '2026-01-05T10:00:00Z' }),
      aSession({ sessionId: 'unplanned', scheduledStartTime: null }),
      aSession({ sessionId: 'short', waiting: waiting('2026-01-05T08:59:00Z') }),
      aSession({ sessionId: 'long', waiting: waiting('2026-01-05T08:50:00Z') }),
    ];
    expect(inOrder(sessions).map((s) => s.sessionId)).toEqual([
      'long',
      'short',
      'sooner',
      'later',
      'unplanned',
      'over',
    ]);
  });

  it('names a status, and a waiting patient before it', () => {
    expect(statusWords(aSession())).toBe('Scheduled');
    expect(statusWords(aSession({ status: 'NO_SHOW' }))).toBe('Patient did not come');
    expect(statusWords(aSession({ waiting: waiting('2026-01-05T08:59:00Z') }))).toBe(
      'Patient is waiting',
    );
  });
});
