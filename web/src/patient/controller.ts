// Carries out the patient's visit: performs what the machine's states ask for.

import { effect, signal } from '@preact/signals';
import { Api, linkSecret, Problem } from '../shared/api';
import { loadCall, prefetchCall } from '../shared/call/load';
import type { CallModel } from '../shared/call/model';
import type { Gone } from '../shared/call/phase';
import { Consultation } from '../shared/consultation';
import { Preview } from '../shared/media/preview';
import type { Device } from '../shared/media/problem';
import { forget, recall, remember } from '../shared/remember';
import { isOver, isVoiceOnly, type RoomAccess } from '../shared/types';
import { kindOfError } from '../shared/words';
import { Entry } from './entry';
import { START, step, type VisitEvent } from './visit';

/** How long an open camera question may hold up the entry into an admitted call. */
const CAMERA_WITHIN_MS = 8_000;
const ASK_AGAIN_MS = 3_000;
/** How often it is asked again whether the payment is confirmed. */
const PAID_AGAIN_MS = 8_000;

export class VisitController {
  readonly visit = signal(START);
  readonly call = signal<CallModel | null>(null);
  readonly consultation = signal<Consultation | null>(null);
  readonly preview = new Preview();

  #api: Api | null = null;
  #entry: Entry | null = null;

  constructor() {
    // Somebody who muted must stay muted after a reload.
    effect(() => {
      const call = this.call.value;
      const consultation = this.consultation.peek();
      if (call && consultation) this.#remember(consultation, call.wanted.value);
    });
  }

  get api(): Api {
    if (!this.#api) throw new Error('the page has no link');
    return this.#api;
  }

  /** Opens the link in the address and shows the check, or goes straight back into a call. */
  async open(): Promise<void> {
    const secret = linkSecret(location.hash);
    if (secret === null) {
      this.#dispatch({ type: 'REFUSED', kind: 'link-unknown' });
      return;
    }
    try {
      this.#api = new Api(secret);
      const me = await this.#api.open();
      if (me.sessionId === null) throw new Error('this link is not for one consultation');
      await this.#openConsultation(me.sessionId);
    } catch (error) {
      this.#dispatch({ type: 'REFUSED', kind: kindOfError(error) });
    }
  }

  async #openConsultation(sessionId: string): Promise<void> {
    const session = await this.api.session(sessionId);
    this.consultation.value?.close();
    this.#entry?.giveUp();
    const consultation = new Consultation(this.api, session, {
      onReady: () => this.#knock(),
      onWaiting: (position) => this.#dispatch({ type: 'WAIT', position }),
      onAdmitted: () => {
        this.#dispatch({ type: 'ADMITTED' });
        this.#knock();
      },
      onSentBack: () => this.#sentBack(),
    });
    this.consultation.value = consultation;
    this.#entry = this.#entryTo(consultation);
    consultation.session.subscribe((s) => {
      if (isOver(s.status)) void this.#over();
    });
    this.#dispatch({ type: 'OPENED' });
    if (this.visit.value.at === 'check') await this.#check(sessionId);
  }

  async #check(sessionId: string): Promise<void> {
    const held = recall(this.api.me.userId);
    const before = held?.sessionId === sessionId ? held : null;
    const asked = this.preview.start(before ?? this.#wish());
    if (before) this.enter();
    await asked;
  }

  /** What is asked of the browser before the person has chosen. */
  #wish(): Record<Device, boolean> {
    const session = this.consultation.value?.session.value;
    return { camera: !session || !isVoiceOnly(session), microphone: true };
  }

  /** The person pressed “Join”. */
  enter(): void {
    if (this.visit.value.at !== 'check') return;
    this.#dispatch({ type: 'ENTER' });
    prefetchCall();
    const consultation = this.consultation.value;
    if (!consultation) return;
    this.#remember(consultation, {
      camera: this.preview.camera.value.is !== 'off',
      microphone: this.preview.microphone.value.is !== 'off',
    });
    consultation.open();
    this.#knock();
  }

  /** The person left or was disconnected for good, and wants to come back. */
  async comeBack(): Promise<void> {
    const id = this.consultation.value?.id;
    if (id === undefined) return;
    try {
      await this.#openConsultation(id);
    } catch (error) {
      this.#dispatch({ type: 'REFUSED', kind: kindOfError(error) });
    }
  }

  async leave(): Promise<void> {
    forget();
    this.#entry?.giveUp();
    const consultation = this.consultation.value;
    this.#dispatch({ type: 'LEFT', replaced: false });
    this.preview.stop();
    await this.#dropCall();
    consultation?.close();
    // The server also notices the absence by itself; this tells the doctor at once.
    if (consultation) await this.api.leave(consultation.id).catch(() => undefined);
  }

  #remember(consultation: Consultation, wanted: Readonly<Record<Device, boolean>>): void {
    remember({ sessionId: consultation.id, userId: this.api.me.userId, ...wanted });
  }

  #dispatch(event: VisitEvent): void {
    this.visit.value = step(this.visit.value, event);
  }

  /** Every path into the call goes through here. */
  #entryTo(consultation: Consultation): Entry {
    return new Entry({
      ask: () => this.api.join(consultation.id),
      onWaiting: (position) => this.#dispatch({ type: 'WAIT', position }),
      goIn: (access, wanted) => this.#goIn(consultation, access, wanted),
      onFailed: (error) => this.#entryFailed(error),
    });
  }

  // Something has happened that may open the door for somebody who stands before it.
  #knock(): void {
    const visit = this.visit.value;
    const before = visit.at === 'waiting' || (visit.at === 'check' && visit.entering);
    if (before) this.#entry?.knock();
  }

  #entryFailed(error: unknown): void {
    const kind = kindOfError(error);
    if (kind === 'over') {
      void this.#over();
      return;
    }
    this.#dispatch({ type: 'ENTER_FAILED', kind });
    const { at } = this.visit.value;
    if (at === 'check') forget();
    if (at === 'check' && kind === 'unpaid') setTimeout(() => void this.#tryPaid(), PAID_AGAIN_MS);
    // In the waiting room the channel shows the trouble; the question is repeated quietly.
    if (at === 'waiting') setTimeout(() => this.#knock(), ASK_AGAIN_MS);
  }

  // The person wanted to come in and still does: a confirmed payment lets it in without a press.
  async #tryPaid(): Promise<void> {
    const visit = this.visit.value;
    if (visit.at === 'check' && visit.problem === 'unpaid') await this.enter();
  }

  async #goIn(
    consultation: Consultation,
    access: RoomAccess,
    wanted: () => boolean,
  ): Promise<void> {
    this.#dispatch({ type: 'ADMITTED' });
    await this.preview.settled(CAMERA_WITHIN_MS);
    const { Call } = await loadCall().catch(() => {
      // Offline at the worst moment.
      throw new Problem('offline', 0);
    });
    if (!wanted()) return;
    this.call.value = new Call({
      access,
      media: this.preview.handOver(),
      join: () => this.api.join(consultation.id),
      onGone: (why) => void this.#gone(why),
      voiceOnly: isVoiceOnly(consultation.session.value),
    });
    this.#dispatch({ type: 'ROOM', access });
    consultation.openChat();
    void consultation.refresh();
  }

  async #gone(why: Gone): Promise<void> {
    switch (why) {
      case 'left':
        return;
      case 'replaced':
        forget();
        this.#entry?.giveUp();
        this.call.value = null;
        this.consultation.value?.close();
        this.#dispatch({ type: 'LEFT', replaced: true });
        return;
      case 'removed':
        this.#sentBack();
        return;
      case 'ended':
        await this.#over();
    }
  }

  #sentBack(): void {
    const { at } = this.visit.value;
    if (at !== 'call' && at !== 'waiting') return;
    const want = this.call.value?.wanted.value ?? this.#wish();
    const consultation = this.consultation.value;
    // What was asked before counts no more.
    this.#entry?.giveUp();
    this.#entry = consultation && this.#entryTo(consultation);
    void this.#dropCall();
    this.#dispatch({ type: 'SENT_BACK' });
    void this.preview.start(want);
    this.#knock();
  }

  async #over(): Promise<void> {
    if (this.visit.value.at === 'ended') return;
    this.#dispatch({ type: 'OVER' });
    this.#entry?.giveUp();
    forget();
    this.preview.stop();
    await this.#dropCall();
    const session = await this.consultation.value?.refresh();
    if (session) this.consultation.value?.close();
  }

  async #dropCall(): Promise<void> {
    const call = this.call.value;
    this.call.value = null;
    await call?.leave();
  }
}
