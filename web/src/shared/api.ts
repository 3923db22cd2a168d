// The consultation API over HTTP: typed calls, one kind of error, a token that renews itself.
//
// A page holds nothing but its join link. The link is exchanged for a bearer token when the page
// opens, again shortly before that token ends, and once more when the server answers 401.

import type { StoredCheck } from './checks/report';
import type {
  Billing,
  ChatMessage,
  Exchange,
  Feedback,
  JoinAnswer,
  Page,
  RoomAccess,
  Session,
} from './types';

export type ProblemKind =
  | 'offline'
  | 'link-unknown'
  | 'link-expired'
  | 'signed-out'
  | 'over'
  | 'unpaid'
  | 'refused'
  | 'full'
  | 'changed'
  | 'busy'
  | 'server';

/** A failed call, named by what the person can do about it. */
export class Problem extends Error {
  readonly kind: ProblemKind;
  readonly status: number;
  readonly code: string;

  constructor(kind: ProblemKind, status: number, code = '', detail = '') {
    super(detail || code || kind);
    this.name = 'Problem';
    this.kind = kind;
    this.status = status;
    this.code = code;
  }
}

/** The kind of problem that an answer stands for, outside the link exchange. */
export function kindOf(status: number, code: string): ProblemKind {
  if (status === 410 || code === 'session_over') return 'over';
  if (status === 402) return 'unpaid';
  if (code === 'full') return 'full';
  if (status === 409) return 'changed';
  if (status === 401 || status === 403 || status === 404) return 'refused';
  if (status === 429 || status === 503) return 'busy';
  return 'server';
}

async function problemFrom(response: Response): Promise<Problem> {
  let code = '';
  let detail = '';
  try {
    const body: unknown = await response.json();
    if (typeof body === 'object' && body !== null) {
      if ('code' in body && typeof body.code === 'string') code = body.code;
      if ('detail' in body && typeof body.detail === 'string') detail = body.detail;
    }
  } catch {
    // Not every refusal carries a body we can read; the status says enough.
  }
  return new Problem(kindOf(response.status, code), response.status, code, detail);
}

/** The secret of a join link: everything behind the `#`, which browsers never send to a server. */
export function linkSecret(hash: string): string | null {
  const secret = hash.replace(/^#/, '').trim();
  return secret === '' ? null : secret;
}

const REQUEST_TIMEOUT_MS = 15_000;
/** A photograph over a weak mobile link takes its time. */
const UPLOAD_TIMEOUT_MS = 180_000;
const RENEW_BEFORE_MS = 60_000;

/** Kinds that asking again cannot cure. */
export function isFinal(kind: ProblemKind): boolean {
  return (
    kind === 'over' ||
    kind === 'refused' ||
    kind === 'link-unknown' ||
    kind === 'link-expired' ||
    kind === 'signed-out'
  );
}

/** How the page reaches the server; replaced in tests. */
export type Fetch = (path: string, init: RequestInit) => Promise<Response>;

/** The API as seen with one join link. */
export class Api {
  #link: string;
  #fetch: Fetch;
  #exchange: Exchange | null = null;
  #exchanging: Promise<Exchange> | null = null;
  #skewMs = 0;
  #signedOut = false;

  constructor(link: string, fetcher: Fetch = (path, init) => fetch(path, init)) {
    this.#link = link;
    this.#fetch = fetcher;
  }

  /** Who this page speaks for. Known after the first `open`. */
  get me(): Exchange {
    if (!this.#exchange) throw new Error('the link was not exchanged yet');
    return this.#exchange;
  }

  /** The server's idea of now: patients' clocks are often wrong by minutes. */
  now(): number {
    return Date.now() + this.#skewMs;
  }

  /** Forgets link and token: from here on every call fails. */
  signOut(): void {
    this.#signedOut = true;
    this.#link = '';
    this.#exchange = null;
  }

  /** Exchanges the link. Calls that overlap share one exchange. */
  open(): Promise<Exchange> {
    if (this.#signedOut) return Promise.reject(new Problem('signed-out', 401));
    this.#exchanging ??= this.#doExchange().finally(() => {
      this.#exchanging = null;
    });
    return this.#exchanging;
  }

  async #doExchange(): Promise<Exchange> {
    const response = await this.#send('/api/v1/links/exchange', {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ link: this.#link }),
    });
    if (response.status === 404 || response.status === 400 || response.status === 422) {
      throw new Problem('link-unknown', response.status);
    }
    if (response.status === 410) throw new Problem('link-expired', response.status);
    if (!response.ok) throw await problemFrom(response);
    this.#exchange = (await response.json()) as Exchange;
    return this.#exchange;
  }

  /** A bearer token that is good for at least a minute. */
  async token(): Promise<string> {
    const held = this.#exchange;
    if (held && Date.parse(held.expiresAt) - this.now() > RENEW_BEFORE_MS) return held.token;
    return (await this.open()).token;
  }

  async session(id: string): Promise<Session> {
    return (await this.#call('GET', sessionPath(id))).json();
  }

  async sessions(): Promise<Session[]> {
    const response = await this.#call('GET', '/api/v1/consultations/sessions?limit=100');
    return ((await response.json()) as Page<Session>).items;
  }

  async join(id: string): Promise<JoinAnswer> {
    const response = await this.#call('POST', `${sessionPath(id)}/join`, {});
    if (response.status === 202) {
      const body = (await response.json()) as { position?: number };
      return { kind: 'waiting', position: body.position ?? 0 };
    }
    return { kind: 'room', access: (await response.json()) as RoomAccess };
  }

  async admit(id: string, userId: string): Promise<void> {
    await this.#call('POST', `${sessionPath(id)}/admit`, { userId });
  }

  async sendBack(id: string, userId: string): Promise<void> {
    await this.#call('POST', `${sessionPath(id)}/send-back`, { userId });
  }

  async leave(id: string): Promise<void> {
    await this.#call('POST', `${sessionPath(id)}/leave`, {});
  }

  async end(id: string): Promise<void> {
    await this.#call('POST', `${sessionPath(id)}/end`, {});
  }

  async chat(id: string, before: string | null): Promise<Page<ChatMessage>> {
    const query = before === null ? '' : `&before=${encodeURIComponent(before)}`;
    return (await this.#call('GET', `${sessionPath(id)}/chat?limit=50${query}`)).json();
  }

  /** Sends a picture or file; the answer is its message. */
  async upload(id: string, file: File, clientId: string): Promise<ChatMessage> {
    const form = new FormData();
    form.append('clientId', clientId);
    form.append('file', file);
    return (await this.#call('POST', `${sessionPath(id)}/attachments`, form)).json();
  }

  /** The content of a picture or file. */
  async attachment(id: string, attachmentId: string): Promise<Blob> {
    const path = `${sessionPath(id)}/attachments/${encodeURIComponent(attachmentId)}`;
    return (await this.#call('GET', path)).blob();
  }

  /** Says how it was. The server takes it once: a second one is a conflict. */
  async giveFeedback(id: string, feedback: Feedback): Promise<void> {
    await this.#call('POST', `${sessionPath(id)}/feedback`, feedback);
  }

  /** What somebody's connection check found, by the code that the person told. */
  async connectionCheck(code: string): Promise<StoredCheck> {
    return (await this.#call('GET', `/api/v1/checks/${encodeURIComponent(code)}`)).json();
  }

  async billing(id: string): Promise<Billing> {
    return (await this.#call('GET', `${sessionPath(id)}/billing`)).json();
  }

  async #call(method: string, path: string, body?: unknown): Promise<Response> {
    const attempt = async () => {
      const headers: Record<string, string> = { authorization: `Bearer ${await this.token()}` };
      const init: RequestInit = { method, headers };
      if (body instanceof FormData) {
        // The browser adds the content type with the form's boundary.
        init.body = body;
        return this.#send(path, init, UPLOAD_TIMEOUT_MS);
      }
      if (body !== undefined) {
        headers['content-type'] = 'application/json';
        init.body = JSON.stringify(body);
      }
      return this.#send(path, init);
    };
    let response = await attempt();
    if (response.status === 401) {
      await this.open();
      response = await attempt();
    }
    if (!response.ok) throw await problemFrom(response);
    return response;
  }

  async #send(
    path: string,
    init: RequestInit,
    timeoutMs: number = REQUEST_TIMEOUT_MS,
  ): Promise<Response> {
    let response: Response;
    try {
      response = await this.#fetch(path, {
        ...init,
        cache: 'no-store',
        credentials: 'omit',
        signal: AbortSignal.timeout(timeoutMs),
      });
    } catch {
      throw new Problem('offline', 0);
    }
    const date = Date.parse(response.headers.get('date') ?? '');
    if (!Number.isNaN(date)) this.#learnClock(date);
    return response;
  }

  // `Date` has whole seconds: a small difference is rounding, not a wrong clock.
  #learnClock(serverMs: number): void {
    const skew = serverMs - Date.now();
    this.#skewMs = Math.abs(skew) < 2_000 ? 0 : skew;
  }
}

function sessionPath(id: string): string {
  return `/api/v1/consultations/sessions/${encodeURIComponent(id)}`;
}
