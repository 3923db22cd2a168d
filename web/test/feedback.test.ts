import { describe, expect, it } from 'vitest';
import {
  charactersLeft,
  type Draft,
  EMPTY,
  MAX_REVIEW,
  missing,
  TAGS,
  toSend,
  withTag,
} from '../src/patient/feedback';
import { money } from '../src/shared/format';
import { tookPlace } from '../src/shared/types';
import { aSession } from './session';

describe('the feedback form', () => {
  it('needs the stars and nothing else', () => {
    expect(missing(EMPTY)).toMatch(/stars/);
    expect(missing({ ...EMPTY, overall: 1 })).toBeNull();
    expect(toSend({ ...EMPTY, overall: 4 }, false)).toEqual({ overallRating: 4, feedbackTags: [] });
  });

  it('sends every answer under the name that the server reads', () => {
    const draft: Draft = {
      overall: 5,
      audio: 4,
      video: 3,
      doctor: 2,
      tags: new Set(['On-time', 'Friendly']),
      review: '  Thank you!\n',
      recommend: false,
    };
    expect(toSend(draft, false)).toEqual({
      overallRating: 5,
      audioQuality: 4,
      videoQuality: 3,
      doctorBehaviour: 2,
      reviewText: 'Thank you!',
      feedbackTags: ['Friendly', 'On-time'],
      wouldRecommend: false,
    });
    expect(toSend(draft, true)).not.toHaveProperty('videoQuality');
  });

  it('takes a tag back when it is pressed again', () => {
    const once = withTag(EMPTY, TAGS[0]);
    expect([...once.tags]).toEqual([TAGS[0]]);
    expect([...withTag(once, TAGS[0]).tags]).toEqual([]);
    expect([...EMPTY.tags]).toEqual([]);
  });

  it('counts the review as the server does', () => {
    expect(charactersLeft('\u{1F642}')).toBe(MAX_REVIEW - 1);
    const long = { ...EMPTY, overall: 5, review: 'x'.repeat(MAX_REVIEW + 1) };
    expect(missing(long)).toMatch(/too long/);
    expect(missing({ ...long, review: 'x'.repeat(MAX_REVIEW) })).toBeNull();
  });

  it('is for what took place', () => {
    const actualStartTime = '2026-01-05T09:00:00Z';
    expect(tookPlace(aSession({ status: 'COMPLETED', actualStartTime }))).toBe(true);
    expect(tookPlace(aSession({ status: 'FAILED', actualStartTime }))).toBe(true);
    expect(tookPlace(aSession({ status: 'COMPLETED' }))).toBe(false);
    expect(tookPlace(aSession({ status: 'CANCELLED' }))).toBe(false);
    expect(tookPlace(aSession({ status: 'IN_PROGRESS', actualStartTime }))).toBe(false);
  });
});

describe('amounts', () => {
  it('keep the digits that the server gave', () => {
    expect(money('500.00', 'INR', 'en-IN')).toBe('₹500.00');
    expect(money('9', 'JPY', 'en-US')).toBe('¥9');
    expect(money('1.235', 'KWD', 'en-US')).toMatch(/1\.235$/);
  });
});
