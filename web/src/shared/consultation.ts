// One consultation as a page sees it: its session, its channel, its chat, and who is there.

import { type Signal, signal } from '@preact/signals';
import type { Api } from './api';
import { Channel, type ChannelState } from './channel';
import { Chat } from './chat';
import type { ServerFrame, Session } from './types';

export interface ConsultationEvents {
  /** The channel is ready, for the first time or again: what was missed must be asked for. */
  onReady?: () => void;
  onWaiting?: (position: number) => void;
  onAdmitted?: () => void;
  onSentBack?: () => void;
}

export class Consultation {
  readonly id: string;
  readonly session: Signal<Session>;
  readonly channelState = signal<ChannelState>('connecting');
  readonly chat: Chat;

  #api: Api;
  #events: ConsultationEvents;
  #channel: Channel | null = null;
  #chatOpen = false;
  #hurry = () => this.#channel?.hurry();

  constructor(api: Api, session: Session, events: ConsultationEvents = {}) {
    this.id = session.sessionId;
    this.session = signal(session);
    this.#api = api;
    this.#events = events;
    this.chat = new Chat({
      me: api.me.userId,
      myName: api.me.name,
      send: (payload) =>
        this.#channel?.send('CHAT_MESSAGE', { sessionId: this.id, ...payload }) ?? false,
      mark: (type, messageId) => this.#channel?.send(type, { messageId }) ?? false,
      upload: (file, clientId) => api.upload(this.id, file, clientId),
      download: (attachmentId) => api.attachment(this.id, attachmentId),
      history: (before) => api.chat(this.id, before),
      newId: () => crypto.randomUUID(),
      now: () => api.now(),
    });
  }

  /** Opens the channel. While it is open, a waiting person keeps their place. */
  open(): void {
    if (this.#channel) return;
    this.#channel = new Channel({
      path: `/api/v1/consultations/sessions/${encodeURIComponent(this.id)}/channel`,
      token: () => this.#api.token(),
      onFrame: (frame) => this.#receive(frame),
      onState: (state) => {
        this.channelState.value = state;
      },
    });
    window.addEventListener('online', this.#hurry);
    document.addEventListener('visibilitychange', this.#hurry);
  }

  /** From now on this person may read the chat: its history is fetched, now and after each loss. */
  openChat(): void {
    this.#chatOpen = true;
    this.#refreshChat();
  }

  close(): void {
    window.removeEventListener('online', this.#hurry);
    document.removeEventListener('visibilitychange', this.#hurry);
    this.#channel?.close();
    this.#channel = null;
  }

  /** Reads the session again. Failures leave what is known: the next status frame tells more. */
  async refresh(): Promise<Session> {
    try {
      this.session.value = await this.#api.session(this.id);
    } catch {
      // Nothing to do here: the caller goes on with the last known session.
    }
    return this.session.value;
  }

  #refreshChat(): void {
    void this.chat.refresh().catch(() => undefined);
  }

  #receive(frame: ServerFrame): void {
    switch (frame.type) {
      case 'READY':
        this.#events.onReady?.();
        if (this.#chatOpen) this.#refreshChat();
        return;
      case 'CHAT_MESSAGE':
        this.chat.receive(frame.payload);
        return;
      case 'RECEIPT':
        this.chat.receipt(frame.payload);
        return;
      case 'MESSAGE_DELETED':
        this.chat.deleted(frame.payload.messageId);
        return;
      case 'SESSION_STATUS': {
        const { status, participants } = frame.payload;
        const became = status !== this.session.value.status;
        this.session.value = { ...this.session.value, status, participants };
        // The frame has no times; they are needed once the call has begun or ended.
        if (became) void this.refresh();
        return;
      }
      case 'PARTICIPANT_STATUS':
        this.#setPresence(frame.payload.participantId, frame.payload.status);
        return;
      case 'WAITING':
        this.#events.onWaiting?.(frame.payload.position);
        return;
      case 'ADMITTED':
        this.#events.onAdmitted?.();
        return;
      case 'SENT_BACK':
        this.#events.onSentBack?.();
        return;
      case 'ERROR':
        if (frame.payload.clientId) this.chat.refused(frame.payload.clientId);
        return;
      case 'SESSIONS':
      case 'SESSION_CHANGED':
      case 'PONG':
        return;
    }
  }

  #setPresence(userId: string, status: string): void {
    const known = status.toLowerCase() as Session['participants'][number]['status'];
    const session = this.session.value;
    this.session.value = {
      ...session,
      participants: session.participants.map((p) =>
        p.userId === userId ? { ...p, status: known } : p,
      ),
    };
  }
}
