// The chat of one consultation: history, what arrives, and what is still on its way out.

import { computed, type ReadonlySignal, signal } from '@preact/signals';
import { Problem } from './api';
import type { Attachment, ChatMessage, Page } from './types';

/** One line of the chat as shown: a stored message, or one of ours that the server has not echoed. */
export interface ChatLine {
  key: string;
  mine: boolean;
  senderName: string;
  content: string;
  timestamp: string;
  kind: 'text' | 'image' | 'file' | 'system';
  attachment: Attachment | null;
  /** `refused`: trying again would not help; `reason` says why. */
  state: 'stored' | 'sending' | 'failed' | 'refused';
  reason: string;
  /** How far an own line has come. */
  receipt: 'sent' | 'delivered' | 'read';
}

interface Outgoing {
  clientId: string;
  content: string;
  timestamp: string;
  state: 'sending' | 'failed' | 'refused';
  reason: string;
  file: File | null;
}

export interface ChatOptions {
  me: string;
  myName: string;
  /** Sends over the channel; false when there is none at the moment. */
  send: (payload: { content: string; messageType: 'text'; clientId: string }) => boolean;
  /** Says over the channel that everything up to a message came, or was read; false without one. */
  mark: (type: 'DELIVERED' | 'READ', messageId: string) => boolean;
  upload: (file: File, clientId: string) => Promise<ChatMessage>;
  download: (attachmentId: string) => Promise<Blob>;
  /** Reads a page of history, newest page first. */
  history: (before: string | null) => Promise<Page<ChatMessage>>;
  newId: () => string;
  now: () => number;
}

const ECHO_WITHIN_MS = 10_000;
/** Receipts of messages that come close together are one. */
const MARK_AFTER_MS = 300;
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
  #delivered = 0;
  #read = 0;
  #marking: ReturnType<typeof setTimeout> | undefined;

  constructor(options: ChatOptions) {
    this.#options = options;
    this.lines = computed(() => [...this.#storedLines(), ...this.#outgoingLines()]);
  }

  /** The panel is open or shut; what arrives while it is open counts as read. */
  show(open: boolean): void {
    this.#open = open;
    if (!open) return;
    this.unread.value = 0;
    this.#markSoon();
  }

  /** Fetches the newest page; again after each loss of the channel, to fill the gap. */
  async refresh(): Promise<void> {
    const page = await this.#options.history(null);
    const fresh = page.items.filter((m) => !this.#stored.value.has(m.messageId));
    // Messages that came before this page was opened were read elsewhere or long ago.
    if (this.#loadedOnce && !this.#open) {
      this.unread.value += fresh.filter((m) => this.#isOthers(m)).length;
    }
    this.#store(page.items);
    if (!this.#loadedOnce) {
      this.#cursor = page.nextCursor;
      this.more.value = page.nextCursor !== null;
      this.#loadedOnce = true;
    }
    this.#resend();
    this.#markSoon();
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
    if (known || !this.#isOthers(message)) return;
    if (!this.#open) this.unread.value += 1;
    this.#markSoon();
  }

  /** Somebody has got, or read, everything that others wrote up to a message. */
  receipt(receipt: { userId: string; status: string; sequence: number }): void {
    const { userId, status, sequence } = receipt;
    if (userId === this.#options.me) {
      if (status === 'read') this.unread.value = 0;
      return;
    }
    const stored = new Map(this.#stored.value);
    for (const [id, message] of stored) {
      const older = message.sequence <= sequence && message.senderId !== userId;
      if (older && message.status !== 'read') stored.set(id, { ...message, status });
    }
    this.#stored.value = stored;
  }

  /** A message was taken back. */
  deleted(messageId: string): void {
    const stored = new Map(this.#stored.value);
    if (stored.delete(messageId)) this.#stored.value = stored;
  }

  /** Sends a picture or file. It shows at once and is marked until the server has it. */
  sendFile(file: File): void {
    const clientId = this.#options.newId();
    const timestamp = new Date(this.#options.now()).toISOString();
    const line = { clientId, content: '', timestamp, state: 'sending' as const, reason: '', file };
    this.#outgoing.value = [...this.#outgoing.value, line];
    void this.#transfer(clientId, file);
  }

  /** The content of a picture or file. */
  download(attachmentId: string): Promise<Blob> {
    return this.#options.download(attachmentId);
  }

  /** Sends a text. It shows at once and is marked until the server has it. */
  say(text: string): void {
    const content = text.trim().slice(0, LONGEST_MESSAGE);
    if (content === '') return;
    const clientId = this.#options.newId();
    const timestamp = new Date(this.#options.now()).toISOString();
    this.#outgoing.value = [
      ...this.#outgoing.value,
      { clientId, content, timestamp, state: 'sending', reason: '', file: null },
    ];
    this.#transmit(clientId, content);
  }

  /** The server would not take a line of ours. */
  refused(clientId: string): void {
    this.#mark(clientId, 'failed');
  }

  /** Tries a failed line again. */
  retry(clientId: string): void {
    const line = this.#outgoing.value.find((o) => o.clientId === clientId);
    if (!line || line.state === 'refused') return;
    if (line.file && line.state === 'sending') return;
    this.#mark(clientId, 'sending');
    if (line.file) void this.#transfer(clientId, line.file);
    else this.#transmit(clientId, line.content);
  }

  #resend(): void {
    for (const line of this.#outgoing.value) this.retry(line.clientId);
  }

  async #transfer(clientId: string, file: File): Promise<void> {
    try {
      this.#store([await this.#options.upload(file, clientId)]);
    } catch (error) {
      const reason = refusal(error);
      this.#mark(clientId, reason === '' ? 'failed' : 'refused', reason);
    }
  }

  #isOthers(message: ChatMessage): boolean {
    return message.senderId !== this.#options.me && message.messageType !== 'system';
  }

  #markSoon(): void {
    this.#marking ??= setTimeout(() => {
      this.#marking = undefined;
      this.#sendMarks();
    }, MARK_AFTER_MS);
  }

  #sendMarks(): void {
    const others = [...this.#stored.value.values()].filter((m) => this.#isOthers(m));
    const last = others.reduce<ChatMessage | null>(
      (last, m) => (last && last.sequence > m.sequence ? last : m),
      null,
    );
    if (!last) return;
    if (this.#open && last.sequence > this.#read) {
      // Without a channel it is said after the reconnect, when the chat is refreshed.
      if (this.#options.mark('READ', last.messageId)) this.#read = last.sequence;
    } else if (!this.#open && last.sequence > Math.max(this.#delivered, this.#read)) {
      if (this.#options.mark('DELIVERED', last.messageId)) this.#delivered = last.sequence;
    }
  }

  #transmit(clientId: string, content: string): void {
    // Without a channel the line stays "sending": `refresh` after the reconnect sends it.
    if (!this.#options.send({ content, messageType: 'text', clientId })) return;
    setTimeout(() => this.#mark(clientId, 'failed'), ECHO_WITHIN_MS);
  }

  #mark(clientId: string, state: Outgoing['state'], reason = ''): void {
    this.#outgoing.value = this.#outgoing.value.map((o) =>
      o.clientId === clientId ? { ...o, state, reason } : o,
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
    messages.sort((a, b) => a.sequence - b.sequence);
    return messages.map((m) => ({
      key: m.messageId,
      mine: m.senderId === this.#options.me,
      senderName: m.senderName,
      content: m.content,
      timestamp: m.timestamp,
      kind: kindOf(m),
      attachment: m.attachment ?? null,
      state: 'stored',
      reason: '',
      receipt: m.status === 'read' || m.status === 'delivered' ? m.status : 'sent',
    }));
  }

  #outgoingLines(): ChatLine[] {
    return this.#outgoing.value.map((o) => ({
      key: o.clientId,
      mine: true,
      senderName: this.#options.myName,
      content: o.file ? o.file.name : o.content,
      timestamp: o.timestamp,
      kind: 'text',
      attachment: null,
      state: o.state,
      reason: o.reason,
      receipt: 'sent',
    }));
  }
}

function kindOf(message: ChatMessage): ChatLine['kind'] {
  if (message.messageType === 'system') return 'system';
  if (!message.attachment) return 'text';
  return message.messageType === 'image' ? 'image' : 'file';
}

/** Why a file can never be sent, in plain words; empty = it may be tried again. */
function refusal(error: unknown): string {
  if (!(error instanceof Problem)) return '';
  if (error.status === 413) return 'This file is too large.';
  if (error.status === 415) return 'Files of this type cannot be sent.';
  if (error.status === 422) return 'This picture is too large.';
  if (error.code === 'too_many_files') return 'No more files can be sent in this consultation.';
  if (error.kind === 'over' || error.kind === 'refused') return 'Files cannot be sent any more.';
  return '';
}
