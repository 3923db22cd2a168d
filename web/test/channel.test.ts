import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import {
  Channel,
  type ChannelState,
  pauseBefore,
  readFrame,
  type Socket,
  socketUrl,
} from '../src/shared/channel';
import type { ServerFrame } from '../src/shared/types';

class FakeSocket implements Socket {
  onopen: (() => void) | null = null;
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onclose: ((event: { code: number }) => void) | null = null;
  sent: string[] = [];
  closed = false;

  send(data: string): void {
    this.sent.push(data);
  }

  close(): void {
    this.closed = true;
  }

  say(type: string, payload: unknown = {}): void {
    this.onmessage?.({ data: JSON.stringify({ type, payload }) });
  }
}

const sockets: FakeSocket[] = [];
const frames: ServerFrame[] = [];
const states: ChannelState[] = [];
let tokens = 0;
let tokenFails = false;

function open(): Channel {
  return new Channel({
    path: '/channel',
    token: async () => {
      if (tokenFails) throw new Error('offline');
      tokens += 1;
      return `token-${tokens}`;
    },
    onFrame: (frame) => frames.push(frame),
    onState: (state) => states.push(state),
    connect: () => {
      const socket = new FakeSocket();
      sockets.push(socket);
      return socket;
    },
    random: () => 1,
  });
}

const settle = () => vi.advanceTimersByTimeAsync(0);
const newest = (): FakeSocket => {
  const socket = sockets.at(-1);
  if (!socket) throw new Error('no socket was opened');
  return socket;
};

async function ready(): Promise<Channel> {
  const channel = open();
  await settle();
  newest().onopen?.();
  newest().say('READY', { userId: 'p', role: 'patient' });
  return channel;
}

beforeEach(() => {
  vi.useFakeTimers();
  sockets.length = 0;
  frames.length = 0;
  states.length = 0;
  tokens = 0;
  tokenFails = false;
});

afterEach(() => vi.useRealTimers());

describe('the channel', () => {
  it('authenticates first and is ready after the first frame', async () => {
    const channel = open();
    await settle();
    expect(channel.send('PING', {})).toBe(false);
    newest().onopen?.();
    expect(newest().sent).toEqual(['{"type":"AUTH","payload":{"token":"token-1"}}']);
    newest().say('READY', { userId: 'p', role: 'patient' });
    expect(states).toEqual(['ready']);
    expect(channel.send('CHAT_MESSAGE', { content: 'hi' })).toBe(true);
    channel.close();
  });

  it('is not ready when the server refuses the token', async () => {
    open();
    await settle();
    newest().onopen?.();
    newest().say('ERROR', { code: 'unauthorized', detail: '' });
    expect(states).toEqual([]);
    newest().onclose?.({ code: 4401 });
    expect(states).toEqual(['lost']);
  });

  it('comes back with growing pauses and a fresh token each time', async () => {
    await ready();
    newest().onclose?.({ code: 1006 });
    await vi.advanceTimersByTimeAsync(499);
    expect(sockets).toHaveLength(1);
    await vi.advanceTimersByTimeAsync(1);
    expect(sockets).toHaveLength(2);
    newest().onclose?.({ code: 1006 });
    await vi.advanceTimersByTimeAsync(999);
    expect(sockets).toHaveLength(2);
    await vi.advanceTimersByTimeAsync(1);
    expect(sockets).toHaveLength(3);
    newest().onopen?.();
    expect(newest().sent[0]).toContain('token-3');
    newest().say('READY', { userId: 'p', role: 'patient' });
    expect(states.at(-1)).toBe('ready');
  });

  it('goes on trying while no token can be had', async () => {
    tokenFails = true;
    open();
    await settle();
    expect(states).toEqual(['lost']);
    tokenFails = false;
    await vi.advanceTimersByTimeAsync(500);
    expect(sockets).toHaveLength(1);
  });

  it('notices silence', async () => {
    await ready();
    const first = newest();
    await vi.advanceTimersByTimeAsync(20_000);
    expect(first.sent.filter((s) => s.includes('PING'))).toHaveLength(2);
    expect(states.at(-1)).toBe('ready');
    await vi.advanceTimersByTimeAsync(10_000);
    expect(first.closed).toBe(true);
    expect(states).toContain('lost');
  });

  it('stays while the server answers', async () => {
    await ready();
    for (let i = 0; i < 10; i += 1) {
      await vi.advanceTimersByTimeAsync(10_000);
      newest().say('PONG');
    }
    expect(sockets).toHaveLength(1);
    expect(states).toEqual(['ready']);
  });

  it('gives up a connection that never opens', async () => {
    open();
    await settle();
    await vi.advanceTimersByTimeAsync(10_000);
    expect(sockets[0]?.closed).toBe(true);
    expect(states).toContain('lost');
  });

  it('hurries when the network is back, and only when lost', async () => {
    const channel = await ready();
    channel.hurry();
    await settle();
    expect(sockets).toHaveLength(1);
    newest().onclose?.({ code: 1006 });
    channel.hurry();
    await settle();
    expect(sockets).toHaveLength(2);
  });

  it('stays closed and ignores late frames', async () => {
    const channel = await ready();
    const socket = newest();
    channel.close();
    expect(socket.onmessage).toBeNull();
    await vi.advanceTimersByTimeAsync(60_000);
    expect(sockets).toHaveLength(1);
    expect(states.at(-1)).toBe('closed');
  });
});

describe('frames', () => {
  it('drops what is not a known frame', () => {
    const bad = [
      '',
      'null',
      '[]',
      '7',
      '{}',
      '{"type":1}',
      '{"type":"NEWER","payload":{}}',
      '{"type"',
    ];
    for (const text of bad) expect(readFrame(text)).toBeNull();
    expect(readFrame(new ArrayBuffer(4))).toBeNull();
  });

  it('reads a frame without a payload', () => {
    expect(readFrame('{"type":"ADMITTED"}')).toEqual({ type: 'ADMITTED', payload: {} });
    expect(readFrame('{"type":"PONG","payload":null}')).toEqual({ type: 'PONG', payload: {} });
  });
});

describe('addresses and pauses', () => {
  it('keeps the secret of the link out of the channel’s address', () => {
    expect(socketUrl('/api/c', 'https://clinic.example/visit#secret')).toBe(
      'wss://clinic.example/api/c',
    );
    expect(socketUrl('/api/c', 'http://127.0.0.1:8000/visit#s')).toBe('ws://127.0.0.1:8000/api/c');
  });

  it('doubles the pause up to ten seconds and spreads it', () => {
    expect([0, 1, 2, 3, 4, 5, 50].map((n) => pauseBefore(n, 1))).toEqual([
      500, 1_000, 2_000, 4_000, 8_000, 10_000, 10_000,
    ]);
    expect(pauseBefore(2, 0)).toBe(1_000);
  });
});
