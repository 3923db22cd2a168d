import { describe, expect, it } from 'vitest';
import { between, clock, count, initials, spoken, timeOfDay } from '../src/shared/format';
import { loudness } from '../src/shared/media/level';
import { deviceProblem, problemAdvice, problemTitle } from '../src/shared/media/problem';
import { isOver } from '../src/shared/types';
import { kindOfError, problemWords } from '../src/shared/words';

describe('times', () => {
  it('are a running clock', () => {
    expect([0, 59_999, 60_000, 3_599_000, 3_729_000, -5].map(clock)).toEqual([
      '0:00',
      '0:59',
      '1:00',
      '59:59',
      '1:02:09',
      '0:00',
    ]);
  });

  it('are spoken in a sentence', () => {
    expect([1_000, 40_000, 60_000, 754_000, 3_600_000, 3_900_000].map(spoken)).toEqual([
      '1 second',
      '40 seconds',
      '1 minute',
      '13 minutes',
      '1 hour',
      '1 hour 5 minutes',
    ]);
    expect(count(1, 'message')).toBe('1 message');
  });

  it('are empty where the timestamp is missing or broken', () => {
    expect(timeOfDay(null)).toBe('');
    expect(timeOfDay('soon')).toBe('');
    expect(timeOfDay('2026-01-05T09:05:00Z', 'en')).toMatch(/^\d{1,2}:05\u00a0[AP]M$/);
    expect(between(null, '2026-01-05T09:05:00Z')).toBeNull();
    expect(between('2026-01-05T09:00:00Z', '2026-01-05T09:05:00Z')).toBe(300_000);
  });
});

describe('initials', () => {
  it('leave out the title', () => {
    expect(
      ['Dr. Ines Moreau', 'anna keller', 'Plato', 'Ana María de la Cruz', ''].map(initials),
    ).toEqual(['IM', 'AK', 'P', 'AC', '']);
  });
});

describe('loudness', () => {
  it('is nothing for silence, full for a shout, and rises between', () => {
    const tone = (peak: number) =>
      Float32Array.from({ length: 1024 }, (_, i) => peak * Math.sin(i / 5));
    expect(loudness(new Float32Array(1024))).toBe(0);
    expect(loudness(new Float32Array(0))).toBe(0);
    expect(loudness(tone(0.9))).toBe(1);
    expect(loudness(tone(0.02))).toBeGreaterThan(loudness(tone(0.005)));
  });
});

describe('device problems', () => {
  it('are told apart by the error’s name', () => {
    const named = (name: string) => deviceProblem(new DOMException('', name));
    expect(named('NotAllowedError')).toBe('denied');
    expect(named('NotFoundError')).toBe('none');
    expect(named('OverconstrainedError')).toBe('none');
    expect(named('NotReadableError')).toBe('busy');
    expect(deviceProblem('what')).toBe('other');
  });

  it('all have words', () => {
    for (const problem of ['denied', 'none', 'busy', 'insecure', 'unsupported', 'other'] as const) {
      for (const device of ['camera', 'microphone'] as const) {
        expect(problemTitle(device, problem)).toContain(device);
        expect(problemAdvice(device, problem)).toMatch(/\.$/);
      }
    }
  });
});

describe('problems', () => {
  it('have words without codes', () => {
    for (const kind of [
      'offline',
      'link-unknown',
      'link-expired',
      'over',
      'refused',
      'full',
      'changed',
      'busy',
      'server',
    ] as const) {
      const { title, advice } = problemWords(kind);
      expect(`${title} ${advice}`).not.toMatch(/error|\d{3}|token|http/i);
    }
    expect(kindOfError(new TypeError('x'))).toBe('server');
  });
});

describe('a session', () => {
  it('is over in its last states only', () => {
    expect(['COMPLETED', 'CANCELLED', 'NO_SHOW', 'FAILED'].every(isOver)).toBe(true);
    expect(['SCHEDULED', 'WAITING', 'IN_PROGRESS', 'PAUSED'].some(isOver)).toBe(false);
  });
});
