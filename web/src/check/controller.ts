// Runs a check: the devices beside the connection, one way after the other, then the report.

import { computed, effect, signal } from '@preact/signals';
import {
  type CheckReport,
  type Finding,
  type Measured,
  type Subject,
  WAYS,
  type Way,
} from '../shared/checks/report';
import { localNetwork } from '../shared/local-network';
import { watchLevel } from '../shared/media/level';
import { Preview } from '../shared/media/preview';
import { type Begun, begin, CheckProblem, type Stored, store } from './api';
import { browserFacts, browserFinding, platform } from './browser';
import {
  deviceFinding,
  localNetworkFinding,
  signalingFinding,
  speakerFinding,
  wayFinding,
} from './conclude';
import { qualityFinding } from './measure';
import type { Tried } from './probe';

export type Stage = 'start' | 'running' | 'done';

/** Louder than a room in which nobody speaks. */
const VOICE = 0.3;

export class CheckController {
  readonly stage = signal<Stage>('start');
  readonly preview = new Preview();
  /** What is being tried now. */
  readonly trying = signal<Subject | null>(null);
  readonly connection = signal<readonly Finding[]>([]);
  readonly measured = signal<Measured | null>(null);
  readonly heardVoice = signal(false);
  /** Did the person hear the test sound? */
  readonly heardSound = signal<boolean | null>(null);
  /** The browser is about to ask for the local network. */
  readonly willAsk = signal(false);
  readonly code = signal<Stored | null>(null);
  readonly codeFailed = signal(false);
  readonly coding = signal(false);
  readonly report = computed<CheckReport>(() => this.#report());

  #browser = browserFacts(navigator.userAgent);
  #begun: Begun | null = null;
  #clinic: string | null;

  constructor(clinic: string | null) {
    this.#clinic = clinic;
    effect(() => {
      const state = this.preview.microphone.value;
      if (state.is !== 'on') return undefined;
      return watchLevel(state.track, (level) => {
        if (level > VOICE) this.heardVoice.value = true;
      });
    });
  }

  async run(): Promise<void> {
    if (this.stage.value === 'running') return;
    this.stage.value = 'running';
    this.connection.value = [];
    this.measured.value = null;
    this.code.value = null;
    this.codeFailed.value = false;
    void this.preview.start({ camera: true, microphone: true });
    const browser = browserFinding(this.#browser, platform());
    this.#say(browser);
    if (browser.outcome !== 'failed' || browser.reason === 'insecure') await this.#connect();
    this.trying.value = null;
    this.stage.value = 'done';
  }

  async #connect(): Promise<void> {
    this.trying.value = 'signaling';
    try {
      this.#begun = await begin();
    } catch (error) {
      const reason = error instanceof CheckProblem ? error.reason : 'other';
      const outcome = reason === 'not_offered' ? 'skipped' : 'failed';
      this.#say({ subject: 'signaling', outcome, reason });
      return;
    }
    const begun = this.#begun;
    this.willAsk.value = begun.localNetwork && (await localNetwork()) === 'prompt';
    const probe = await import('./probe').catch(() => null);
    if (probe === null) {
      this.#say({ subject: 'signaling', outcome: 'failed', reason: 'blocked' });
      return;
    }
    const worked = await this.#tryWays(begun, probe.tryWay);
    if (worked === null) return;
    this.trying.value = 'quality';
    const measured = worked.size > 0 ? await probe.measure(begun) : null;
    this.measured.value = measured;
    if (measured) this.#say(qualityFinding(measured));
    else if (worked.size > 0) this.#say({ subject: 'quality', outcome: 'failed', reason: 'other' });
    else this.#say({ subject: 'quality', outcome: 'failed', reason: 'blocked' });
    const direct = worked.has('udp') || worked.has('tcp');
    const local = localNetworkFinding(await localNetwork(), begun.localNetwork, direct);
    if (local) this.#say(local);
    this.willAsk.value = false;
  }

  /** The ways that worked; null: the server could not be spoken to. */
  async #tryWays(
    begun: Begun,
    tryWay: (begun: Begun, way: Way) => Promise<Tried>,
  ): Promise<Set<Way> | null> {
    const offered = new Set<Way>();
    const worked = new Set<Way>();
    for (const way of WAYS) {
      // The first one learns what there is.
      const first = way === WAYS[0];
      if (!first && !offered.has(way)) {
        this.#say(wayFinding(way, null, false));
        continue;
      }
      if (!first) this.trying.value = way;
      const tried = await tryWay(begun, way);
      for (const other of tried.offered) offered.add(other);
      if (first) {
        this.#say(signalingFinding(tried));
        if (tried.signaling === null) return null;
      }
      const finding = wayFinding(way, tried, location.protocol === 'https:');
      if (finding.outcome === 'ok') worked.add(way);
      this.#say(finding);
    }
    return worked;
  }

  async getCode(): Promise<void> {
    if (!this.#begun || this.coding.value) return;
    this.coding.value = true;
    this.codeFailed.value = false;
    try {
      this.code.value = await store(this.#begun.ticket, this.#clinic, this.report.value);
    } catch {
      this.codeFailed.value = true;
    }
    this.coding.value = false;
  }

  /** Without the server there is nobody who could keep a report. */
  get canGetCode(): boolean {
    return this.#begun !== null;
  }

  #say(finding: Finding): void {
    this.connection.value = [
      ...this.connection.value.filter((f) => f.subject !== finding.subject),
      finding,
    ];
  }

  #report(): CheckReport {
    const measured = this.measured.value;
    return {
      browser: this.#browser,
      findings: [
        deviceFinding('camera', this.preview.camera.value, true),
        deviceFinding('microphone', this.preview.microphone.value, this.heardVoice.value),
        speakerFinding(this.heardSound.value),
        ...this.connection.value,
      ],
      ...(measured ? { measured } : {}),
    };
  }
}
