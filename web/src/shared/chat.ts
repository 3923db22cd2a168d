// The chat of one consultation: history, what arrives, and what is still on its way out.

import { computed, type ReadonlySignal, signal } from '@preact/signals';
import type { ChatMessage, Page } from './types';

/** One line of the chat as shown: a stored message, or one of ours that the server has not echoed. */
export interface ChatLine {
  key: string;
  mine: boolean;
  senderName: string;
  content: string;
  timestamp: string;
  state: 'stored' | 'sending' | 'failed';
}

interface Outgoing {
  clientId: string;
  content: string;
  timestamp: string;
  failed: boolean;
}

export interface ChatOptions {
  me: string;
  myName: string;
  /** Sends over the channel; false when there is none at the moment. */
  send: (payload: { content: string; messageType: 'text'; clientId: string }) => boolean;
  /** Reads a page of history, newest page first. */
  history: (before: string | null) => Promise<Page<ChatMessage>>;
  newId: () => string;
  now: () => number;
}

const ECHO_WITHIN_MS = 10_000;
/** What the channel's frame limit leaves for text with room to spare. */
export const LONGEST_MESSAGE = 4_000;

export class Chat {
  readonly lines: ReadonlySignal<ChatLine[]>;
  readonly unread = signal(0);
  readonly more = signal(false);
  readonly loading = signal(false);

  #options: ChatOptions;
  #stored = signal<ReadonlyMap<string, ChatMessage>>(new Map());
  #outgoing = signal<readonly Outgoing[]>([]);
  #cursor: string | null = null;
  #loadedOnce = false;
  #open = false;

  constructor(options: ChatOptions) {
    this.#options = options;
    this.lines = computed(() => [...this.#storedLines(), ...this.#outgoingLines()]);
  }

  /** The panel is open or shut; what arrives while it is open counts as read. */
  show(open: boolean): void {
    this.#open = open;
    if (open) this.unread.value = 0;
  }

  /** Fetches the newest page; again after each loss of the channel, to fill the gap. */
  async refresh(): Promise<void> {
    const page = await this.#options.history(null);
    const fresh = page.items.filter((m) => !this.#stored.value.has(m.messageId));
    // Messages that came before this page was opened were read elsewhere or long ago.
    if (this.#loadedOnce && !this.#open) {
      this.unread.value += fresh.filter((m) => m.senderId !== this.#options.me).length;
    }
    this.#store(page.items);
    if (!this.#loadedOnce) {
      this.#cursor = page.nextCursor;
      this.more.value = page.nextCursor !== null;
      this.#loadedOnce = true;
    }
    this.#resend();
  }

  /** Fetches the page before the oldest one held. */
  async earlier(): Promise<void> {
    if (this.#cursor === null || this.loading.value) return;
    this.loading.value = true;
    try {
      const page = await this.#options.history(this.#cursor);
      this.#store(page.items);
      this.#cursor = page.nextCursor;
      this.more.value = page.nextCursor !== null;
    } finally {
      this.loading.value = false;
    }
  }

  /** A message came over the channel, somebody else's or the echo of our own. */
  receive(message: ChatMessage): void {
    const known = this.#stored.value.has(message.messageId);
    this.#store([message]);
    if (!known && !this.#open && message.senderId !== this.#options.me) this.unread.value += 1;
  }

  /** Sends a text. It shows at once and is marked until the server has it. */
  say(text: string): void {
    const content = text.trim().slice(0, LONGEST_MESSAGE);
    if (content === '') return;
    const clientId = this.#options.newId();
    const timestamp = new Date(this.#options.now()).toISOString();
    this.#outgoing.value = [
      ...this.#outgoing.value,
      { clientId, content, timestamp, failed: false },
    ];
    this.#transmit(clientId, content);
  }

  /** The server would not take a line of ours. */
  refused(clientId: string): void {
    this.#mark(clientId, true);
  }

  /** Tries a failed line again. */
  retry(clientId: string): void {
    const line = this.#outgoing.value.find((o) => o.clientId === clientId);
    if (!line) return;
    this.#mark(clientId, false);
    this.#transmit(clientId, line.content);
  }

  #resend(): void {
    for (const line of this.#outgoing.value) this.retry(line.clientId);
  }

  #transmit(clientId: string, content: string): void {
    // Without a channel the line stays "sending": `refresh` after the reconnect sends it.
    if (!this.#options.send({ content, messageType: 'text', clientId })) return;
    setTimeout(() => this.#mark(clientId, true), ECHO_WITHIN_MS);
  }

  #mark(clientId: string, failed: boolean): void {
    this.#outgoing.value = this.#outgoing.value.map((o) =>
      o.clientId === clientId ? { ...o, failed } : o,
    );
  }

  #store(messages: readonly ChatMessage[]): void {
    if (messages.length === 0) return;
    const stored = new Map(this.#stored.value);
    for (const message of messages) stored.set(message.messageId, message);
    this.#stored.value = stored;
    const echoed = new Set(messages.map((m) => m.clientId ?? ''));
    this.#outgoing.value = this.#outgoing.value.filter((o) => !echoed.has(o.clientId));
  }

  #storedLines(): ChatLine[] {
    const messages = [...this.#stored.value.values()];
    messages.sort((a, b) => Date.parse(a.timestamp) - Date.parse(b.timestamp));
    return messages.map((m) => ({
      key: m.messageId,
      mine: m.senderId === this.#options.me,
      senderName: m.senderName,
      content: m.content,
      timestamp: m.timestamp,
      state: 'stored',
    }));
  }

  #outgoingLines(): ChatLine[] {
    return this.#outgoing.value.map((o) => ({
      key: o.clientId,
      mine: true,
      senderName: this.#options.myName,
      content: o.content,
      timestamp: o.timestamp,
      state: o.failed ? 'failed' : 'sending',
    }));
  }
}
