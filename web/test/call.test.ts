import { describe, expect, it } from 'vitest';
import { meaningOf, type Phase, REJOIN_FOR_MS, rejoinPause, step } from '../src/shared/call/phase';
import { type LinkSample, linkIsWeak, readLink, Standstill } from '../src/shared/call/quality';
import { type LinkFacts, linkWords } from '../src/shared/call/status';
import { aSession } from './session';

describe('the phases of a call', () => {
  it('keeps the time of the first loss through a failed repair', () => {
    const cut = step({ is: 'connected' }, { type: 'INTERRUPTED' }, 1_000);
    expect(step(cut, { type: 'INTERRUPTED' }, 5_000)).toBe(cut);
    expect(step(cut, { type: 'LOST' }, 9_000)).toEqual({
      is: 'rejoining',
      since: 1_000,
      attempt: 0,
    });
  });

  it('tries for a minute, then leaves it to the person', () => {
    let phase: Phase = step({ is: 'connected' }, { type: 'LOST' }, 0);
    phase = step(phase, { type: 'ATTEMPT_FAILED' }, REJOIN_FOR_MS - 1);
    expect(phase).toMatchObject({ is: 'rejoining', attempt: 1 });
    phase = step(phase, { type: 'ATTEMPT_FAILED' }, REJOIN_FOR_MS);
    expect(phase.is).toBe('failed');
    expect(step(phase, { type: 'LOST' }, REJOIN_FOR_MS + 1).is).toBe('failed');
    expect(step(phase, { type: 'RETRY' }, 99_000)).toEqual({
      is: 'rejoining',
      since: 99_000,
      attempt: 0,
    });
  });

  it('never comes back from the end', () => {
    const gone = step({ is: 'connected' }, { type: 'GONE', why: 'ended' }, 0);
    expect(step(gone, { type: 'CONNECTED' }, 1)).toBe(gone);
    expect(step(gone, { type: 'LOST' }, 1)).toBe(gone);
  });

  it('waits longer before each attempt, the first at once, never over 8 s', () => {
    const pauses = [0, 1, 2, 3, 4, 5, 60].map(rejoinPause);
    expect(pauses).toEqual([0, 1_000, 2_000, 4_000, 8_000, 8_000, 8_000]);
  });

  it('tells the end of a call from a loss', () => {
    expect(meaningOf(1)).toBe('left');
    expect(meaningOf(2)).toBe('replaced');
    expect(meaningOf(4)).toBe('removed');
    expect(meaningOf(5)).toBe('ended');
    for (const loss of [undefined, 0, 3, 6, 7, 9, 14]) expect(meaningOf(loss)).toBeNull();
  });
});

describe('the words about the link', () => {
  const facts: LinkFacts = {
    phase: { is: 'connected' },
    people: [
      {
        identity: 'd',
        name: 'Dr. Ines Moreau',
        camera: null,
        screen: null,
        microphoneOn: true,
        speaking: false,
        weak: false,
        stalled: false,
        picturePaused: false,
      },
    ],
    weak: false,
    cutOff: false,
    session: aSession(),
    me: 'p',
    expected: 'Dr. Ines Moreau',
    seconds: 10_000,
  };
  const lost = aSession({
    participants: [
      { userId: 'd', name: 'Dr. Ines Moreau', role: 'doctor', status: 'reconnecting' },
      { userId: 'p', name: 'Anna Keller', role: 'patient', status: 'reconnecting' },
    ],
  });

  it('says the worst thing first', () => {
    const reconnecting: LinkFacts = {
      ...facts,
      weak: true,
      session: lost,
      phase: { is: 'reconnecting', since: 3_000 },
    };
    expect(linkWords(reconnecting)).toEqual({
      text: 'Connection lost. Reconnecting…',
      tone: 'bad',
      seconds: 7,
    });
    expect(linkWords({ ...facts, weak: true, session: lost }).text).toBe(
      'Dr. Ines Moreau is reconnecting…',
    );
    expect(linkWords({ ...facts, weak: true }).text).toBe('Your connection is weak');
    expect(linkWords(facts)).toMatchObject({ text: 'Connected', tone: 'good' });
  });

  it('tells that a connection did not come back, until somebody is there', () => {
    const [first, ...others] = lost.participants;
    if (!first) throw new Error('nobody was lost');
    const participants = [{ ...first, status: 'left' as const, connectionLost: true }, ...others];
    const session = aSession({ participants });
    expect(linkWords({ ...facts, people: [], session })).toEqual({
      text: 'Dr. Ines Moreau lost the connection and can come back',
      tone: 'bad',
      seconds: null,
    });
    expect(linkWords({ ...facts, session }).text).toBe('Connected');
  });

  it('notices before the server does', () => {
    const people = facts.people.map((p) => ({ ...p, stalled: true }));
    expect(linkWords({ ...facts, people }).text).toBe('Dr. Ines Moreau is reconnecting…');
    // When nothing comes from anybody it is our own link.
    expect(linkWords({ ...facts, people, cutOff: true }).text).toBe(
      'Connection lost. Reconnecting…',
    );
  });

  it('does not tell a person that they themselves reconnect when they are connected', () => {
    const session = aSession({ participants: lost.participants.slice(1) });
    expect(linkWords({ ...facts, session }).text).toBe('Connected');
  });

  it('tells that a picture is paused, before anything about weak links', () => {
    const people = facts.people.map((p) => ({ ...p, picturePaused: true }));
    expect(linkWords({ ...facts, people, weak: true })).toMatchObject({
      text: 'The picture is paused, the voice is safe',
      tone: 'warn',
    });
  });

  it('names who is missing', () => {
    expect(linkWords({ ...facts, people: [] }).text).toBe('Waiting for Dr. Ines Moreau');
  });
});

describe('the judgement of the link', () => {
  const sample = (over: Partial<LinkSample>): LinkSample => ({
    received: 1_000,
    sound: 0,
    picture: 0,
    lost: 0,
    sendLoss: 0,
    roundTripMs: 40,
    heard: 0,
    ...over,
  });

  it('adds up what several tracks report', () => {
    const report = (entries: object[]) =>
      new Map(entries.map((e, i) => [String(i), e])) as unknown as RTCStatsReport;
    const link = readLink([
      report([{ type: 'inbound-rtp', kind: 'video', packetsReceived: 100, packetsLost: 2 }]),
      report([
        { type: 'inbound-rtp', kind: 'audio', packetsReceived: 50, packetsLost: -1 },
        { type: 'remote-inbound-rtp', fractionLost: 0.1, roundTripTime: 0.25 },
        { type: 'codec', packetsLost: 999 },
        { type: 'candidate-pair', packetsReceived: 40, responsesReceived: 3 },
        { type: 'candidate-pair', packetsReceived: 0, responsesReceived: 1 },
      ]),
    ]);
    expect(link).toEqual({
      received: 150,
      sound: 50,
      picture: 100,
      lost: 1,
      sendLoss: 0.1,
      roundTripMs: 250,
      heard: 43,
    });
  });

  it('calls three equal samples a standstill', () => {
    const standstill = new Standstill(2);
    expect([5, 5, 5, 5, 6, 6, 0].map((n) => standstill.add(n))).toEqual([
      false,
      false,
      true,
      true,
      false,
      false,
      false,
    ]);
    standstill.reset();
    expect([0, 0].map((n) => standstill.add(n))).toEqual([false, false]);
  });

  it('calls loss and delay weak, and a few packets nothing', () => {
    const before = sample({});
    expect(linkIsWeak(before, sample({ received: 1_100 }))).toBe(false);
    expect(linkIsWeak(before, sample({ received: 1_100, lost: 20 }))).toBe(true);
    expect(linkIsWeak(before, sample({ received: 1_003, lost: 3 }))).toBe(false);
    expect(linkIsWeak(before, sample({ sendLoss: 0.2 }))).toBe(true);
    expect(linkIsWeak(before, sample({ roundTripMs: 900 }))).toBe(true);
    expect(linkIsWeak(sample({ lost: 50 }), sample({ received: 1_100, lost: 10 }))).toBe(false);
  });
});
