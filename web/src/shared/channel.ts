// A channel to the server: one WebSocket that authenticates first, notices silence, and comes back.
//
// The consultation channel and the doctor's list channel speak the same frames, so one client
// serves both. It promises: `onFrame` sees well-formed frames of known types only; after each loss
// it connects again with growing pauses until `close`; a fresh token is asked for at each attempt.

import type { ServerFrame } from './types';

export type ChannelState = 'connecting' | 'ready' | 'lost' | 'closed';

/** The part of a WebSocket that the channel needs; replaced in tests. */
export interface Socket {
  onopen: (() => void) | null;
  onmessage: ((event: { data: unknown }) => void) | null;
  onclose: ((event: { code: number }) => void) | null;
  send(data: string): void;
  close(code?: number): void;
}

export interface ChannelOptions {
  /** Path on our own origin. */
  path: string;
  token: () => Promise<string>;
  onFrame: (frame: ServerFrame) => void;
  onState: (state: ChannelState) => void;
  /** Opens a socket; the default is the browser's. */
  connect?: (path: string) => Socket;
  /** Uniform in [0, 1): spreads the attempts of many pages after a restart of the server. */
  random?: () => number;
}

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 10_000;
const PING_EVERY_MS = 10_000;
/** Longer than one ping and its answer on a bad mobile link. */
const SILENCE_MS = 25_000;
const OPEN_WITHIN_MS = 10_000;

/** The pause before the n-th attempt (from 0) after a loss: doubles, capped, halved at most by chance. */
export function pauseBefore(attempt: number, random: number): number {
  const full = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** Math.min(attempt, 10));
  return Math.round(full * (0.5 + random / 2));
}

/** The `ws(s):` URL of a path on this page's origin. */
export function socketUrl(path: string, base: string): string {
  const url = new URL(path, base);
  url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
  url.hash = '';
  return url.href;
}

const KNOWN = new Set<string>([
  'READY',
  'CHAT_MESSAGE',
  'RECEIPT',
  'MESSAGE_DELETED',
  'SESSION_STATUS',
  'WAITING',
  'ADMITTED',
  'SENT_BACK',
  'PARTICIPANT_STATUS',
  'SESSIONS',
  'SESSION_CHANGED',
  'PONG',
  'ERROR',
]);

/** Reads one frame; `null` for what this page does not know. A payload may be left out when empty. */
export function readFrame(data: unknown): ServerFrame | null {
  if (typeof data !== 'string') return null;
  let value: unknown;
  try {
    value = JSON.parse(data);
  } catch {
    return null;
  }
  if (typeof value !== 'object' || value === null || !('type' in value)) return null;
  if (typeof value.type !== 'string' || !KNOWN.has(value.type)) return null;
  const payload = 'payload' in value ? value.payload : {};
  if (typeof payload !== 'object' || payload === null)
    return { type: value.type, payload: {} } as ServerFrame;
  return { type: value.type, payload } as ServerFrame;
}

export class Channel {
  #options: ChannelOptions;
  #socket: Socket | null = null;
  #state: ChannelState = 'connecting';
  #attempt = 0;
  #heardAt = 0;
  #retry: ReturnType<typeof setTimeout> | undefined;
  #ping: ReturnType<typeof setInterval> | undefined;
  #opening: ReturnType<typeof setTimeout> | undefined;

  constructor(options: ChannelOptions) {
    this.#options = options;
    void this.#connect();
  }

  get state(): ChannelState {
    return this.#state;
  }

  /** Sends a frame now. False when the channel is not ready: the caller keeps what matters. */
  send(type: string, payload: unknown): boolean {
    if (this.#state !== 'ready' || !this.#socket) return false;
    this.#socket.send(JSON.stringify({ type, payload }));
    return true;
  }

  /** Tries again at once: the browser said that the network is back, or the page is visible again. */
  hurry(): void {
    if (this.#state !== 'lost') return;
    clearTimeout(this.#retry);
    this.#attempt = 0;
    void this.#connect();
  }

  close(): void {
    this.#enter('closed');
    this.#drop();
  }

  async #connect(): Promise<void> {
    if (this.#state === 'closed') return;
    this.#retry = undefined;
    this.#enter('connecting');
    let token: string;
    try {
      token = await this.#options.token();
    } catch {
      this.#lose();
      return;
    }
    // `close` may have been called, or another attempt begun, while the token was on its way.
    if (this.#state !== 'connecting' || this.#socket) return;
    const socket = (this.#options.connect ?? openSocket)(this.#options.path);
    this.#socket = socket;
    this.#opening = setTimeout(() => this.#abandon(socket), OPEN_WITHIN_MS);
    socket.onopen = () => socket.send(JSON.stringify({ type: 'AUTH', payload: { token } }));
    socket.onmessage = (event) => this.#receive(socket, event.data);
    socket.onclose = () => this.#abandon(socket);
  }

  #receive(socket: Socket, data: unknown): void {
    if (socket !== this.#socket) return;
    this.#heardAt = Date.now();
    const frame = readFrame(data);
    if (!frame) return;
    // The list channel has no READY of its own: any frame but an error proves that AUTH passed.
    if (this.#state === 'connecting' && frame.type !== 'ERROR') this.#becomeReady(socket);
    this.#options.onFrame(frame);
  }

  #becomeReady(socket: Socket): void {
    clearTimeout(this.#opening);
    this.#attempt = 0;
    this.#ping = setInterval(() => {
      if (Date.now() - this.#heardAt > SILENCE_MS) this.#abandon(socket);
      else this.send('PING', {});
    }, PING_EVERY_MS);
    this.#enter('ready');
  }

  #abandon(socket: Socket): void {
    if (socket !== this.#socket) return;
    this.#drop();
    this.#lose();
  }

  #drop(): void {
    clearTimeout(this.#retry);
    clearTimeout(this.#opening);
    clearInterval(this.#ping);
    const socket = this.#socket;
    this.#socket = null;
    if (!socket) return;
    socket.onopen = null;
    socket.onmessage = null;
    socket.onclose = null;
    socket.close(1000);
  }

  #lose(): void {
    if (this.#state === 'closed') return;
    this.#enter('lost');
    const random = (this.#options.random ?? Math.random)();
    this.#retry = setTimeout(() => void this.#connect(), pauseBefore(this.#attempt, random));
    this.#attempt += 1;
  }

  #enter(state: ChannelState): void {
    if (this.#state === state || this.#state === 'closed') return;
    this.#state = state;
    this.#options.onState(state);
  }
}

function openSocket(path: string): Socket {
  return new WebSocket(socketUrl(path, location.href)) as unknown as Socket;
}
