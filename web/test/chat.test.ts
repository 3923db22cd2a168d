import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Problem } from '../src/shared/api';
import { Chat } from '../src/shared/chat';
import type { ChatMessage, Page } from '../src/shared/types';

const message = (n: number, over: Partial<ChatMessage> = {}): ChatMessage => ({
  messageId: `m${n}`,
  sessionId: 's1',
  senderId: 'd',
  senderName: 'Dr. Ines Moreau',
  senderType: 'doctor',
  sequence: n,
  status: 'sent',
  content: `text ${n}`,
  messageType: 'text',
  timestamp: new Date(Date.UTC(2026, 0, 5, 9, n)).toISOString(),
  ...over,
});

let pages: Record<string, Page<ChatMessage>>;
let sent: { content: string; clientId: string }[];
let online: boolean;
let marks: string[];
let uploads: ((message: ChatMessage | Error) => void)[];

function chat(): Chat {
  let id = 0;
  return new Chat({
    me: 'p',
    myName: 'Anna Keller',
    send: (payload) => {
      if (online) sent.push(payload);
      return online;
    },
    mark: (type, messageId) => {
      if (online) marks.push(`${type} ${messageId}`);
      return online;
    },
    upload: () =>
      new Promise((resolve, reject) => {
        uploads.push((m) => (m instanceof Error ? reject(m) : resolve(m)));
      }),
    download: async () => new Blob(['x']),
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
  marks = [];
  uploads = [];
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

  it('says what came and what was read: once for many, and after a reconnect', async () => {
    const c = chat();
    c.receive(message(1));
    c.receive(message(2));
    c.receive(message(3, { senderId: 'p' }));
    c.receive(message(4, { senderId: 'system', messageType: 'system' }));
    expect(c.unread.value).toBe(2);
    await vi.advanceTimersByTimeAsync(300);
    expect(marks).toEqual(['DELIVERED m2']);
    c.show(true);
    await vi.advanceTimersByTimeAsync(300);
    c.show(true);
    await vi.advanceTimersByTimeAsync(300);
    expect(marks).toEqual(['DELIVERED m2', 'READ m2']);
    online = false;
    c.receive(message(5));
    await vi.advanceTimersByTimeAsync(300);
    online = true;
    await c.refresh();
    await vi.advanceTimersByTimeAsync(300);
    expect(marks.slice(2)).toEqual(['READ m5']);
  });

  it('shows how far own lines have come, and never less', () => {
    const c = chat();
    c.receive(message(1, { senderId: 'p' }));
    c.receive(message(2, { senderId: 'p' }));
    c.receive(message(3));
    const receipts = () => c.lines.value.map((l) => l.receipt);
    expect(receipts()).toEqual(['sent', 'sent', 'sent']);
    c.receipt({ userId: 'd', status: 'read', sequence: 1 });
    c.receipt({ userId: 'd', status: 'delivered', sequence: 3 });
    expect(receipts()).toEqual(['read', 'delivered', 'sent']);
    // Read on another device of one's own.
    expect(c.unread.value).toBe(1);
    c.receipt({ userId: 'p', status: 'read', sequence: 3 });
    expect(c.unread.value).toBe(0);
  });

  it('shows lines of the server, and lets go of what was taken back', () => {
    const c = chat();
    c.receive(message(1, { senderId: 'system', messageType: 'system', content: 'let in' }));
    c.receive(message(2));
    expect(c.lines.value.map((l) => l.kind)).toEqual(['system', 'text']);
    c.deleted('m2');
    c.deleted('m9');
    expect(texts(c)).toEqual(['let in']);
  });

  it('sends a picture: shown at once, tried again, given up where that is no use', async () => {
    const c = chat();
    const file = new File(['x'], 'knee.png', { type: 'image/png' });
    c.sendFile(file);
    expect(c.lines.value).toMatchObject([{ content: 'knee.png', state: 'sending' }]);
    // A reconnect does not send it twice.
    await c.refresh();
    expect(uploads).toHaveLength(1);
    uploads[0]?.(new Problem('offline', 0));
    await vi.advanceTimersByTimeAsync(0);
    expect(c.lines.value).toMatchObject([{ state: 'failed' }]);
    c.retry('c1');
    const attachment = { attachmentId: 'a', fileName: 'knee.png', fileSize: 1, mimeType: 'image/png' };
    uploads[1]?.(message(1, { senderId: 'p', messageType: 'image', content: '', attachment, clientId: 'c1' }));
    await vi.advanceTimersByTimeAsync(0);
    expect(c.lines.value).toMatchObject([{ kind: 'image', state: 'stored', attachment }]);
    c.sendFile(new File(['x'], 'evil.svg'));
    uploads[2]?.(new Problem('server', 415, 'unsupported_type'));
    await vi.advanceTimersByTimeAsync(0);
    expect(c.lines.value[1]).toMatchObject({ state: 'refused', reason: 'Files of this type cannot be sent.' });
    c.retry('c2');
    expect(uploads).toHaveLength(3);
  });
});
