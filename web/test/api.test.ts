import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Api, kindOf, linkSecret, Problem } from '../src/shared/api';

interface Call {
  path: string;
  method: string;
  authorization: string | null;
  body: unknown;
}

type Answer = { status: number; body?: unknown; date?: string } | 'offline';

let calls: Call[];
let answers: Record<string, Answer[]>;

function api(): Api {
  return new Api('secret', async (path, init) => {
    calls.push({
      path,
      method: init.method ?? 'GET',
      authorization: new Headers(init.headers).get('authorization'),
      body: typeof init.body === 'string' ? JSON.parse(init.body) : null,
    });
    const queue = answers[path] ?? [];
    const answer = queue.length > 1 ? queue.shift() : queue[0];
    if (!answer || answer === 'offline') throw new TypeError('failed to fetch');
    const headers = answer.date ? { date: answer.date } : undefined;
    return new Response(JSON.stringify(answer.body ?? {}), { status: answer.status, headers });
  });
}

const exchange = (token: string, expiresAt: string) => ({
  status: 200,
  body: {
    token,
    expiresAt,
    role: 'patient',
    userId: 'p',
    name: 'Anna',
    sessionId: 's1',
    clinic: 'c',
  },
});

const EXCHANGE = '/api/v1/links/exchange';
const JOIN = '/api/v1/consultations/sessions/s1/join';

beforeEach(() => {
  vi.useFakeTimers({ now: Date.UTC(2026, 0, 5, 9) });
  calls = [];
  answers = { [EXCHANGE]: [exchange('t1', '2026-01-05T10:00:00Z')] };
});

afterEach(() => vi.useRealTimers());

async function problemOf(promise: Promise<unknown>): Promise<Problem> {
  const error = await promise.then(
    () => null,
    (e: unknown) => e,
  );
  if (!(error instanceof Problem)) throw new Error('it did not fail with a problem');
  return error;
}

describe('the link', () => {
  it('is what stands behind the #', () => {
    expect(linkSecret('#abc')).toBe('abc');
    expect(linkSecret('#')).toBeNull();
    expect(linkSecret('')).toBeNull();
  });

  it('is forgotten by whoever is signed out', async () => {
    const client = api();
    await client.open();
    client.signOut();
    const before = calls.length;
    await expect(client.join('s1')).rejects.toMatchObject({ kind: 'signed-out' });
    await expect(client.open()).rejects.toMatchObject({ kind: 'signed-out' });
    expect(calls.length).toBe(before);
  });

  it('is exchanged in the body, never in the address', async () => {
    await api().open();
    expect(calls).toMatchObject([{ path: EXCHANGE, method: 'POST', body: { link: 'secret' } }]);
  });

  it.each([
    [404, 'link-unknown'],
    [422, 'link-unknown'],
    [410, 'link-expired'],
    [503, 'busy'],
    [500, 'server'],
  ])('answered %i is %s', async (status, kind) => {
    answers = { [EXCHANGE]: [{ status }] };
    expect((await problemOf(api().open())).kind).toBe(kind);
  });

  it('without a network is offline', async () => {
    answers = { [EXCHANGE]: ['offline'] };
    expect((await problemOf(api().open())).kind).toBe('offline');
  });
});

describe('the token', () => {
  it('is kept, and renewed a minute before it ends', async () => {
    const a = api();
    answers[EXCHANGE] = [
      exchange('t1', '2026-01-05T09:05:00Z'),
      exchange('t2', '2026-01-05T10:00:00Z'),
    ];
    expect([await a.token(), await a.token()]).toEqual(['t1', 't1']);
    vi.setSystemTime(Date.UTC(2026, 0, 5, 9, 4, 1));
    expect(await a.token()).toBe('t2');
  });

  it('is judged by the server’s clock', async () => {
    const a = api();
    answers[EXCHANGE] = [
      { ...exchange('t1', '2026-01-05T06:10:00Z'), date: 'Mon, 05 Jan 2026 06:00:00 GMT' },
    ];
    await a.open();
    expect(a.now()).toBe(Date.UTC(2026, 0, 5, 6));
    await a.token();
    expect(calls).toHaveLength(1);
  });

  it('is renewed once when the server refuses it', async () => {
    const a = api();
    answers[EXCHANGE] = [
      exchange('t1', '2026-01-05T10:00:00Z'),
      exchange('t2', '2026-01-05T10:00:00Z'),
    ];
    answers[JOIN] = [{ status: 401 }, { status: 202, body: { position: 2 } }];
    expect(await a.join('s1')).toEqual({ kind: 'waiting', position: 2 });
    expect(calls.filter((c) => c.path === JOIN).map((c) => c.authorization)).toEqual([
      'Bearer t1',
      'Bearer t2',
    ]);
    answers[JOIN] = [{ status: 401 }];
    expect((await problemOf(a.join('s1'))).kind).toBe('refused');
  });

  it('is fetched once for calls that overlap', async () => {
    const a = api();
    await Promise.all([a.token(), a.token(), a.token()]);
    expect(calls).toHaveLength(1);
  });
});

describe('joining', () => {
  it('gives the room once admitted', async () => {
    const access = {
      accessToken: 'r',
      url: 'ws://x',
      roomName: 'r1',
      identity: 'p',
      iceServers: [],
    };
    answers[JOIN] = [{ status: 200, body: access }];
    expect(await api().join('s1')).toEqual({ kind: 'room', access });
  });

  it('carries the server’s code', async () => {
    answers[JOIN] = [{ status: 409, body: { code: 'session_over', detail: 'it is over' } }];
    expect(await problemOf(api().join('s1'))).toMatchObject({ kind: 'over', code: 'session_over' });
  });
});

describe('feedback', () => {
  const FEEDBACK = '/api/v1/consultations/sessions/s1/feedback';

  it('is given in one request, and a second one is a conflict', async () => {
    answers[FEEDBACK] = [{ status: 201 }, { status: 409, body: { code: 'feedback_given' } }];
    const asked = api();
    const feedback = { overallRating: 5, feedbackTags: ['On-time'] };
    await asked.giveFeedback('s1', feedback);
    expect(calls.at(-1)).toMatchObject({ path: FEEDBACK, method: 'POST', body: feedback });
    expect(await problemOf(asked.giveFeedback('s1', feedback))).toMatchObject({ kind: 'changed' });
  });
});

describe('kinds', () => {
  it('never calls a refusal a fault of the server', () => {
    const plain = (status: number) => kindOf(status, '');
    expect([401, 403, 404].map(plain)).toEqual(['refused', 'refused', 'refused']);
    expect([429, 503].map(plain)).toEqual(['busy', 'busy']);
    expect([400, 500, 502].map(plain)).toEqual(['server', 'server', 'server']);
  });

  it('knows a missing payment', () => {
    expect(kindOf(402, 'payment_required')).toBe('unpaid');
  });

  it('tells the end from other conflicts', () => {
    expect(kindOf(409, 'session_over')).toBe('over');
    expect(kindOf(410, '')).toBe('over');
    expect(kindOf(409, 'full')).toBe('full');
    expect(kindOf(409, 'not_here')).toBe('changed');
  });
});
