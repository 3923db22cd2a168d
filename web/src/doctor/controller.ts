// Carries out the doctor's day: the live list, admitting, the call and its end.

import { computed, effect, signal } from '@preact/signals';
import { Api, linkSecret, Problem } from '../shared/api';
import { loadCall, prefetchCall } from '../shared/call/load';
import type { CallModel } from '../shared/call/model';
import type { Gone } from '../shared/call/phase';
import { Channel, type ChannelState } from '../shared/channel';
import { Consultation } from '../shared/consultation';
import { Preview } from '../shared/media/preview';
import { forget, recall, remember } from '../shared/remember';
import { isOver, isVoiceOnly, type RoomAccess, type ServerFrame, type Session } from '../shared/types';
import { kindOfError } from '../shared/words';
import { type DeskEvent, inOrder, START, step } from './desk';

const CAMERA_WITHIN_MS = 8_000;
/** How often the list is read while its channel is down. */
const POLL_MS = 5_000;
/** How often the server is told that somebody is here. */
const ACTIVITY_EVERY_MS = 30_000;

export class DeskController {
  readonly desk = signal(START);
  readonly sessions = signal<ReadonlyMap<string, Session>>(new Map());
  readonly ordered = computed(() => inOrder(this.sessions.value.values()));
  readonly listState = signal<ChannelState>('connecting');
  readonly call = signal<CallModel | null>(null);
  readonly consultation = signal<Consultation | null>(null);
  /** A failed action within the call, shown until the next one. */
  readonly actionProblem = signal<string | null>(null);
  readonly preview = new Preview();
  readonly checking = signal(false);
  /** Nothing was done here for long: the server is about to sign out. */
  readonly idle = signal(false);

  #api: Api | null = null;
  #list: Channel | null = null;

  constructor() {
    // Somebody who muted must stay muted after a reload.
    effect(() => {
      const call = this.call.value;
      const consultation = this.consultation.peek();
      if (!call || !consultation) return;
      const { userId } = this.api.me;
      remember({ sessionId: consultation.id, userId, ...call.wanted.value });
    });
  }

  get api(): Api {
    if (!this.#api) throw new Error('the page has no link');
    return this.#api;
  }

  async open(): Promise<void> {
    const secret = linkSecret(location.hash);
    if (secret === null) {
      this.#dispatch({ type: 'REFUSED', kind: 'link-unknown' });
      return;
    }
    try {
      this.#api = new Api(secret);
      const me = await this.#api.open();
      if (me.role !== 'doctor') throw new Problem('link-unknown', 0);
      await this.#readList();
    } catch (error) {
      this.#dispatch({ type: 'REFUSED', kind: kindOfError(error) });
      return;
    }
    this.#watchList();
    this.#dispatch({ type: 'OPENED' });
    prefetchCall();
    await this.#resume();
  }

  /** Lets a person in and enters the call with them. */
  async admit(sessionId: string, userId: string): Promise<void> {
    await this.#enter(sessionId, userId);
  }

  /** Enters a call without admitting anybody. */
  async enter(sessionId: string): Promise<void> {
    await this.#enter(sessionId, null);
  }

  /** Within the call: lets a person in who waits for this consultation. */
  async admitHere(userId: string): Promise<void> {
    const id = this.consultation.value?.id;
    if (id !== undefined)
      await this.#act('They could not be let in.', () => this.api.admit(id, userId));
  }

  async sendBack(userId: string): Promise<void> {
    const id = this.consultation.value?.id;
    if (id === undefined) return;
    await this.#act('They could not be sent back.', () => this.api.sendBack(id, userId));
  }

  async leave(): Promise<void> {
    const id = this.consultation.value?.id;
    await this.#closeCall();
    this.#dispatch({ type: 'LEFT', replaced: false });
    if (id !== undefined) await this.api.leave(id).catch(() => undefined);
  }

  async end(): Promise<void> {
    const id = this.consultation.value?.id;
    if (id === undefined) return;
    const done = await this.#act('The consultation could not be ended.', () => this.api.end(id));
    if (done) await this.#finished();
  }

  toList(): void {
    this.#dispatch({ type: 'TO_LIST' });
    void this.#readList().catch(() => undefined);
  }

  /** Shows or hides the doctor's own camera check on the list. */
  async check(on: boolean): Promise<void> {
    this.checking.value = on;
    if (on) await this.preview.start({ camera: true, microphone: true });
    else this.preview.stop();
  }

  #dispatch(event: DeskEvent): void {
    this.desk.value = step(this.desk.value, event);
  }

  async #readList(): Promise<void> {
    const sessions = await this.api.sessions();
    this.sessions.value = new Map(sessions.map((s) => [s.sessionId, s]));
  }

  #watchList(): void {
    const channel = new Channel({
      path: '/api/v1/consultations/channel',
      token: () => this.api.token(),
      onFrame: (frame) => this.#receive(frame),
      onState: (state) => {
        this.listState.value = state;
      },
    });
    this.#list = channel;
    // The server signs out who does nothing; of keys and pointers it hears from here.
    let toldAt = 0;
    const active = () => {
      if (!this.idle.value && Date.now() - toldAt < ACTIVITY_EVERY_MS) return;
      if (!channel.send('ACTIVITY', {})) return;
      toldAt = Date.now();
      this.idle.value = false;
    };
    for (const kind of ['pointerdown', 'keydown']) {
      window.addEventListener(kind, active, { passive: true });
    }
    const hurry = () => channel.hurry();
    window.addEventListener('online', hurry);
    document.addEventListener('visibilitychange', hurry);
    setInterval(() => {
      if (channel.state === 'ready' || document.hidden) return;
      void this.#readList().catch(() => undefined);
    }, POLL_MS);
  }

  #receive(frame: ServerFrame): void {
    if (frame.type === 'SESSIONS') {
      this.sessions.value = new Map(frame.payload.items.map((s) => [s.sessionId, s]));
    } else if (frame.type === 'SESSION_CHANGED') {
      const { session } = frame.payload;
      this.sessions.value = new Map(this.sessions.value).set(session.sessionId, session);
    } else if (frame.type === 'ERROR' && frame.payload.code === 'idle') {
      this.idle.value = true;
    } else if (frame.type === 'ERROR' && frame.payload.code === 'signed_out') {
      this.#signedOut();
    }
  }

  // Whoever comes to this screen next must not find the link in the address bar.
  #signedOut(): void {
    this.#list?.close();
    this.api.signOut();
    this.idle.value = false;
    this.sessions.value = new Map();
    history.replaceState(null, '', location.pathname);
    this.#dispatch({ type: 'REFUSED', kind: 'signed-out' });
  }

  // After a reload in the middle of a call: straight back into it.
  async #resume(): Promise<void> {
    const before = recall(this.api.me.userId);
    const session = before ? this.sessions.value.get(before.sessionId) : undefined;
    if (!before || !session || isOver(session.status)) return;
    await this.#enter(session.sessionId, null, before);
  }

  async #enter(
    sessionId: string,
    admit: string | null,
    want = { camera: true, microphone: true },
  ): Promise<void> {
    const session = this.sessions.value.get(sessionId);
    const before = this.desk.value;
    // Two quick presses are one entry: a second one would close the first at the server.
    if (!session || before.at !== 'list' || before.entering !== null) return;
    this.#dispatch({ type: 'ENTER', sessionId });
    try {
      // The camera starts while the server is asked; an own check that runs already is kept.
      const voiceOnly = isVoiceOnly(session);
      if (voiceOnly) await this.preview.turn('camera', false);
      const media = { ...want, camera: want.camera && !voiceOnly };
      const asked = this.checking.value ? Promise.resolve() : this.preview.start(media);
      if (admit !== null) await this.api.admit(sessionId, admit);
      const answer = await this.api.join(sessionId);
      if (answer.kind === 'waiting') throw new Problem('refused', 202);
      await Promise.race([asked, this.preview.settled(CAMERA_WITHIN_MS)]);
      await this.#startCall(session, answer.access);
      this.#dispatch({ type: 'ENTERED' });
    } catch (error) {
      this.preview.stop();
      forget();
      this.#dispatch({ type: 'ENTER_FAILED', kind: kindOfError(error) });
    }
  }

  async #startCall(session: Session, access: RoomAccess): Promise<void> {
    const consultation = new Consultation(this.api, session);
    const { Call } = await loadCall();
    const call = new Call({
      access,
      media: this.preview.handOver(),
      join: () => this.api.join(session.sessionId),
      onGone: (why) => void this.#gone(why),
      voiceOnly: isVoiceOnly(session),
    });
    this.checking.value = false;
    this.actionProblem.value = null;
    this.consultation.value = consultation;
    this.call.value = call;
    consultation.open();
    consultation.openChat();
    consultation.session.subscribe((s) => {
      if (isOver(s.status)) void this.#finished();
    });
    void consultation.refresh();
  }

  async #act(failure: string, action: () => Promise<void>): Promise<boolean> {
    this.actionProblem.value = null;
    try {
      await action();
      return true;
    } catch (error) {
      if (error instanceof Problem && error.kind === 'over') return true;
      this.actionProblem.value = failure;
      return false;
    }
  }

  async #gone(why: Gone): Promise<void> {
    switch (why) {
      case 'left':
        return;
      case 'replaced':
      case 'removed':
        await this.#closeCall();
        this.#dispatch({ type: 'LEFT', replaced: true });
        return;
      case 'ended':
        await this.#finished();
    }
  }

  async #finished(): Promise<void> {
    if (this.desk.value.at !== 'call') return;
    this.#dispatch({ type: 'FINISHED' });
    const consultation = this.consultation.value;
    await this.#closeCall();
    const session = await consultation?.refresh();
    if (session) {
      this.sessions.value = new Map(this.sessions.value).set(session.sessionId, session);
    }
  }

  async #closeCall(): Promise<void> {
    forget();
    const call = this.call.value;
    this.call.value = null;
    this.consultation.value?.close();
    this.consultation.value = null;
    await call?.leave();
  }
}
