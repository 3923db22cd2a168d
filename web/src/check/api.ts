// The server's side of a check: a room for a short time, and a place for the report.

import type { CheckReport, Reason } from '../shared/checks/report';

/** What the server gives to a page that begins a check. */
export interface Begun {
  url: string;
  probeToken: string;
  echoToken: string;
  expiresAt: string;
  ticket: string;
  /** Does the server carry media from addresses of a local network only? */
  localNetwork: boolean;
}

export interface Stored {
  code: string;
  expiresAt: string;
}

/** Why the server's side of a check is not to be had. */
export class CheckProblem extends Error {
  readonly reason: Reason;

  constructor(reason: Reason) {
    super(reason);
    this.name = 'CheckProblem';
    this.reason = reason;
  }
}

const TIMEOUT_MS = 15_000;

/** How the page reaches the server; replaced in tests. */
export type Fetch = (path: string, init: RequestInit) => Promise<Response>;

async function post<T>(path: string, body: unknown, fetcher: Fetch): Promise<T> {
  let response: Response;
  try {
    response = await fetcher(path, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
      cache: 'no-store',
      credentials: 'omit',
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
  } catch {
    throw new CheckProblem('blocked');
  }
  if (response.ok) return (await response.json()) as T;
  throw new CheckProblem(reasonOf(response.status));
}

/** What an answer's status says about a check. */
export function reasonOf(status: number): Reason {
  if (status === 429 || status === 503) return 'full';
  return status === 404 ? 'not_offered' : 'other';
}

const plain: Fetch = (path, init) => fetch(path, init);

export function begin(fetcher: Fetch = plain): Promise<Begun> {
  return post('/api/v1/checks', {}, fetcher);
}

/** Stores a report: only when the person asks for a code. */
export function store(
  ticket: string,
  clinic: string | null,
  report: CheckReport,
  fetcher: Fetch = plain,
): Promise<Stored> {
  return post('/api/v1/checks/results', { ticket, ...(clinic ? { clinic } : {}), report }, fetcher);
}
