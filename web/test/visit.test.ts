import { describe, expect, it } from 'vitest';
import { START, step, type Visit, type VisitEvent } from '../src/patient/visit';

const access = { accessToken: 't', url: 'ws://x', roomName: 'r', identity: 'p', iceServers: [] };

const run = (...events: VisitEvent[]): Visit => events.reduce(step, START);

describe('the patient’s visit', () => {
  it('goes from the link to the call through the waiting room', () => {
    const steps: VisitEvent[] = [
      { type: 'OPENED' },
      { type: 'ENTER' },
      { type: 'WAIT', position: 2 },
      { type: 'WAIT', position: 1 },
      { type: 'ADMITTED' },
      { type: 'ROOM', access },
    ];
    const seen: string[] = [];
    steps.reduce((visit, event) => {
      const next = step(visit, event);
      seen.push(next.at);
      return next;
    }, START as Visit);
    expect(seen).toEqual(['check', 'check', 'waiting', 'waiting', 'waiting', 'call']);
  });

  it('enters at once when the person was admitted before', () => {
    expect(run({ type: 'OPENED' }, { type: 'ENTER' }, { type: 'ROOM', access }).at).toBe('call');
  });

  it('gives no room to somebody who did not ask for it', () => {
    expect(run({ type: 'OPENED' }, { type: 'ROOM', access }).at).toBe('check');
    expect(run({ type: 'OPENED' }, { type: 'WAIT', position: 1 }).at).toBe('check');
  });

  it('shows the position and forgets an admission that was taken back', () => {
    const waiting = run({ type: 'OPENED' }, { type: 'ENTER' }, { type: 'WAIT', position: 3 });
    expect(waiting).toMatchObject({ position: 3, admitted: false });
    const admitted = step(waiting, { type: 'ADMITTED' });
    expect(admitted).toMatchObject({ admitted: true });
    expect(step(admitted, { type: 'WAIT', position: 1 })).toMatchObject({ admitted: false });
  });

  it('returns to the waiting room when sent back, and can be admitted again', () => {
    const back = run(
      { type: 'OPENED' },
      { type: 'ENTER' },
      { type: 'ROOM', access },
      { type: 'SENT_BACK' },
    );
    expect(back).toMatchObject({ at: 'waiting', sentBack: true, admitted: false });
    expect(step(back, { type: 'ROOM', access }).at).toBe('call');
  });

  it('keeps the reason of a failed entry until the next try', () => {
    const failed = run(
      { type: 'OPENED' },
      { type: 'ENTER' },
      { type: 'ENTER_FAILED', kind: 'busy' },
    );
    expect(failed).toEqual({ at: 'check', entering: false, problem: 'busy' });
    expect(step(failed, { type: 'ENTER' })).toMatchObject({ problem: null });
  });

  it('keeps saying that a payment is missing while it looks again', () => {
    const unpaid = run(
      { type: 'OPENED' },
      { type: 'ENTER' },
      { type: 'ENTER_FAILED', kind: 'unpaid' },
    );
    const again = step(unpaid, { type: 'ENTER' });
    expect(again).toEqual({ at: 'check', entering: true, problem: 'unpaid' });
    expect(step(again, { type: 'WAIT', position: 1 }).at).toBe('waiting');
  });

  it('ends for good', () => {
    const ended = run({ type: 'OPENED' }, { type: 'OVER' });
    const late: VisitEvent[] = [
      { type: 'ROOM', access },
      { type: 'SENT_BACK' },
      { type: 'OPENED' },
      { type: 'LEFT', replaced: true },
      { type: 'REFUSED', kind: 'offline' },
    ];
    for (const event of late) expect(step(ended, event)).toBe(ended);
  });

  it('lets somebody who left come back to the check', () => {
    const left = run({ type: 'OPENED' }, { type: 'ENTER' }, { type: 'LEFT', replaced: false });
    expect(left.at).toBe('left');
    expect(step(left, { type: 'ROOM', access }).at).toBe('left');
    expect(step(left, { type: 'OPENED' }).at).toBe('check');
  });
});
