import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Chat } from '../src/shared/chat';
import type { ChatMessage, Page } from '../src/shared/types';

const message = (n: number, over: Partial<ChatMessage> = {}): ChatMessage => ({
  messageId: `m${n}`,
  sessionId: 's1',
  senderId: 'd',
  senderName: 'Dr. Ines Moreau',
  senderType: 'doctor',
  content: `text ${n}`,
  messageType: 'text',
  timestamp: new Date(Date.UTC(2026, 0, 5, 9, n)).toISOString(),
  ...over,
});

let pages: Record<string, Page<ChatMessage>>;
let sent: { content: string; clientId: string }[];
let online: boolean;

function chat(): Chat {
  let id = 0;
  return new Chat({
    me: 'p',
    myName: 'Anna Keller',
    send: (payload) => {
      if (online) sent.push(payload);
      return online;
    },
    history: async (before) => pages[before ?? 'newest'] ?? { items: [], nextCursor: null },
    newId: () => {
      id += 1;
      return `c${id}`;
    },
    now: () => Date.UTC(2026, 0, 5, 10),
  });
}

const texts = (c: Chat) => c.lines.value.map((l) => l.content);

beforeEach(() => {
  vi.useFakeTimers();
  pages = {};
  sent = [];
  online = true;
});

afterEach(() => vi.useRealTimers());

describe('the chat', () => {
  it('shows history in order, whatever order it came in, and pages back', async () => {
    pages = {
      newest: { items: [message(4), message(3)], nextCursor: 'older' },
      older: { items: [message(2), message(1)], nextCursor: null },
    };
    const c = chat();
    await c.refresh();
    expect(texts(c)).toEqual(['text 3', 'text 4']);
    expect(c.more.value).toBe(true);
    await c.earlier();
    expect(texts(c)).toEqual(['text 1', 'text 2', 'text 3', 'text 4']);
    expect(c.more.value).toBe(false);
  });

  it('shows an own line at once and replaces it by its echo', () => {
    const c = chat();
    c.say('  hello  ');
    expect(c.lines.value).toMatchObject([{ content: 'hello', mine: true, state: 'sending' }]);
    expect(sent).toHaveLength(1);
    c.receive(message(1, { senderId: 'p', content: 'hello', clientId: 'c1' }));
    expect(c.lines.value).toMatchObject([{ content: 'hello', mine: true, state: 'stored' }]);
    c.say('   ');
    expect(sent).toHaveLength(1);
  });

  it('marks a line that gets no echo, and sends it again on request', async () => {
    const c = chat();
    c.say('hello');
    await vi.advanceTimersByTimeAsync(10_000);
    expect(c.lines.value).toMatchObject([{ state: 'failed' }]);
    c.retry('c1');
    expect(c.lines.value).toMatchObject([{ state: 'sending' }]);
    expect(sent.map((s) => s.clientId)).toEqual(['c1', 'c1']);
  });

  it('marks a line that the server refused', () => {
    const c = chat();
    c.say('hello');
    c.refused('c1');
    expect(c.lines.value).toMatchObject([{ state: 'failed' }]);
  });

  it('sends what was written offline once, after the reconnect', async () => {
    const c = chat();
    online = false;
    c.say('from the tunnel');
    await vi.advanceTimersByTimeAsync(60_000);
    expect(c.lines.value).toMatchObject([{ state: 'sending' }]);
    online = true;
    await c.refresh();
    expect(sent.map((s) => s.clientId)).toEqual(['c1']);
  });

  it('does not send again what the server had stored before the loss', async () => {
    const c = chat();
    c.say('hello');
    pages = {
      newest: { items: [message(1, { senderId: 'p', clientId: 'c1' })], nextCursor: null },
    };
    await c.refresh();
    expect(sent).toHaveLength(1);
    expect(c.lines.value).toHaveLength(1);
  });

  it('counts unread: others’ new messages while the panel is shut', async () => {
    pages = { newest: { items: [message(1)], nextCursor: null } };
    const c = chat();
    await c.refresh();
    expect(c.unread.value).toBe(0);
    c.receive(message(2));
    c.receive(message(2));
    c.receive(message(3, { senderId: 'p' }));
    expect(c.unread.value).toBe(1);
    // One that came while the channel was lost.
    pages = { newest: { items: [message(2), message(4)], nextCursor: null } };
    await c.refresh();
    expect(c.unread.value).toBe(2);
    c.show(true);
    expect(c.unread.value).toBe(0);
    c.receive(message(5));
    expect(c.unread.value).toBe(0);
  });
});
